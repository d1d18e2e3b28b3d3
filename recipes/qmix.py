"""QMIX: double Q-learning of a mixed team value from replay; VDN, IQL, QPLEX are the same recipe with other mixers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import ctde_kit as ck
from ctde_kit.recipes import wiring
from ctde_kit.recipes.configs.actors import QActorConfig
from ctde_kit.recipes.configs.checks import check_choice, check_not_negative, check_part, check_positive, check_ratio
from ctde_kit.recipes.configs.mixers import (
    MixerConfig,
    NoMixer,
    QMixerConfig,
    QPLEXMixerConfig,
    VDNMixerConfig,
    check_monotonic,
)
from ctde_kit.recipes.configs.networks import MLPNetwork, NetworkConfig
from ctde_kit.recipes.configs.recipe import RecipeConfig
from ctde_kit.recipes.configs.replays import ReplayConfig
from ctde_kit.recipes.configs.return_forms import NStepReturns, ReturnConfig
from ctde_kit.recipes.configs.target_rules import PolyakTarget, TargetConfig
from ctde_kit.recipes.configs.weightings import NoWeighting, WeightingConfig, check_weighting

if TYPE_CHECKING:
    from ctde_kit import Parts


@dataclass(kw_only=True)
class QMIXConfig(RecipeConfig):
    """QMIX (Rashid et al. 2018), VDN, IQL and QPLEX, as data: ``build`` gives the parts.

    The other recipes are this one with ``algorithm`` and ``mixer``: ``"vdn"`` and ``VDNMixerConfig()``, ``"iql"`` and
    ``NoMixer()``, ``"qplex"`` and ``QPLEXMixerConfig()``.

    Args:
        mixer: qmix, vdn, qplex or none.
        weighting: how errors are weighted: none, optimistic (OW-QMIX) or central (CW-QMIX); with one of the latter two,
            an unrestricted value of the team is learned, too.
        replay: transitions, sequences or episodes, and where they are kept.
        returns: what values learn: n_step or td_lambda.
        target: how target networks follow: polyak or hard.
        updates_per_frame: gradient steps for each frame collected.
        learning_starts: frames before the first gradient step.
        last_action: agents see their last action.
        hidden_from: recurrent networks start a sequence from the stored hidden state (stored) or from zero.
        team_reward: the team's reward is the mean or the sum of its agents'.
        gamma: discount per step.
        lr: learning rate, at the beginning.
        anneal_lr: move it to 0 in a straight line over total_frames.
        value_loss: huber or l2.
        huber_delta: where Huber's loss turns linear, in units of returns.
        max_grad_norm: largest gradient norm, for all actors, the mixer and the unrestricted value separately.
        epsilon_start: probability of a random action at the beginning.
        epsilon_end: that probability after epsilon_frames.
        epsilon_frames: env transitions over which it goes from one to the other in a straight line.

    >>> from ctde_kit.recipes import MatrixTask, QMIXConfig, ReplayConfig, iterate
    >>> config = QMIXConfig(
    ...     task=MatrixTask(n_envs=2), frames_per_batch=12, total_frames=24, replay=ReplayConfig(batch_size=4)
    ... )
    >>> [iteration.metrics["num_updates"] for iteration in iterate(config.build())]
    [2, 2]
    """

    continuous: ClassVar[bool | None] = False

    algorithm: str = "qmix"
    actor: NetworkConfig = field(default_factory=lambda: MLPNetwork(activation="relu"))
    mixer: MixerConfig = field(default_factory=QMixerConfig)
    weighting: WeightingConfig = field(default_factory=NoWeighting)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    returns: ReturnConfig = field(default_factory=NStepReturns)
    target: TargetConfig = field(default_factory=PolyakTarget)
    updates_per_frame: float = 1 / 12
    learning_starts: int = 0
    last_action: bool = False
    hidden_from: str = "stored"
    team_reward: str = "mean"
    gamma: float = 0.9
    lr: float = 3e-4
    anneal_lr: bool = True
    value_loss: str = "huber"
    huber_delta: float = 1.0
    max_grad_norm: float = 5.0
    epsilon_start: float = 1.0
    epsilon_end: float = 0.05
    epsilon_frames: int = 60_000

    def __post_init__(self) -> None:
        self.check_run(("qmix", "vdn", "iql", "qplex"))
        check_ratio(gamma=self.gamma, epsilon_start=self.epsilon_start, epsilon_end=self.epsilon_end)
        check_positive(
            updates_per_frame=self.updates_per_frame,
            lr=self.lr,
            huber_delta=self.huber_delta,
            max_grad_norm=self.max_grad_norm,
            epsilon_frames=self.epsilon_frames,
        )
        check_not_negative(learning_starts=self.learning_starts)
        check_choice("hidden_from", self.hidden_from, ("stored", "zero"))
        check_choice("team_reward", self.team_reward, ("mean", "sum"))
        check_choice("value_loss", self.value_loss, ("huber", "l2"))
        check_monotonic(self.mixer)
        check_weighting(self.weighting, self.mixer)
        mixers = {"vdn": VDNMixerConfig, "iql": NoMixer, "qplex": QPLEXMixerConfig}
        if self.algorithm in mixers:
            kind, found = mixers[self.algorithm], type(self.mixer).__name__
            option = f"mixer={'none' if kind is NoMixer else self.algorithm}"
            python = f"mixer={kind.__name__}()"
            check_part(self.algorithm, isinstance(self.mixer, kind), expected=option, python=python, found=found)

    def policy(self) -> QActorConfig:
        return QActorConfig(
            self.actor, self.last_action, self.epsilon_start, normalize_observations=self.normalize_observations
        )

    def build(self) -> Parts:
        import torch

        run = wiring.begin(self, updates_per_frame=self.updates_per_frame)
        team = ck.TeamSpec.from_env(run.env)
        policy = wiring.team_policy(self, team, run.device)
        actors = wiring.learners_of(policy, ck.MultiAgentQActor)
        learning = wiring.learning_team(team, policy)
        mixer = wiring.mixer(self, learning, run.device)
        central = wiring.central_value(self, learning, mixer, run.device)
        observation_norm = wiring.observation_norm(self, team, policy, run.device, mixer, central)
        reward_norm = wiring.reward_norm(self, learning, run.device, of_team=mixer is not None)
        loss = ck.QMixLoss(
            actors,
            mixer,
            gamma=self.gamma,
            returns=self.returns.build(),
            value_loss=self.value_loss,  # pyright: ignore[reportArgumentType]  # a checked choice
            huber_delta=self.huber_delta,
            burn_in=self.replay.form.burn_in_steps,
            use_stored_hidden=self.hidden_from == "stored",
            reward_norm=reward_norm,
            central=central,
        )
        recurrent = wiring.is_recurrent(*actors.values())
        wiring.check_replay_form(self.replay, self.returns, recurrent)
        trainable = [parameter for parameter in loss.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(trainable, lr=self.lr, eps=1e-5, fused=True)
        compiles = wiring.compiles_updates(run, *actors.values())
        step = ck.GradientStep({"team": loss}, optimizer, self.max_grad_norm, compile=compiles)
        team_reward = ck.TeamReward(learning, self.team_reward)  # pyright: ignore[reportArgumentType]  # a checked choice
        return ck.Parts(
            collector=wiring.collector(self, run, team, policy),
            prepare=wiring.one_after_the_other(team_reward, reward_norm),
            buffer=self.replay.build(keys=loss.stored_keys, device=run.device, max_steps=self.task.episode_steps),
            update_schedule=ck.training.UpdatesPerFrame(self.updates_per_frame, self.learning_starts),
            update=ck.training.UpdateWithTargets(step, {"team": self.target.build(loss)}),
            policy=policy,
            anneal=wiring.epsilon_and_learning_rate(self, actors.values(), optimizer),
            observation_norm=observation_norm,
        )
