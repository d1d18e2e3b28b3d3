"""PQN: Q-learning without replay and without target networks, from many parallel environments."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import ctde_kit as ck
from ctde_kit.errors import UserError
from ctde_kit.recipes import wiring
from ctde_kit.recipes.configs.actors import QActorConfig
from ctde_kit.recipes.configs.checks import check_choice, check_minibatch, check_positive, check_ratio
from ctde_kit.recipes.configs.mixers import MixerConfig, VDNMixerConfig, check_monotonic
from ctde_kit.recipes.configs.networks import MLPNetwork, NetworkConfig
from ctde_kit.recipes.configs.recipe import RecipeConfig
from ctde_kit.recipes.configs.return_forms import ReturnConfig, TDLambdaReturns

if TYPE_CHECKING:
    from ctde_kit import Parts


@dataclass(kw_only=True)
class PQNConfig(RecipeConfig):
    """PQN (Gallici et al. 2025), as data: ``build`` gives the parts; options of all recipes: ``RecipeConfig``.

    Args:
        actor: the actors' network; it needs layer_norm, which takes the target networks' place.
        mixer: vdn, qmix, qplex or none.
        returns: what values learn: td_lambda or n_step.
        minibatch_frames: frames per gradient step.
        sequence_length: steps per sequence, after which returns are bootstrapped; null for the whole batch.
        epochs: passes over a batch.
        last_action: agents see their last action.
        team_reward: the team's reward is the mean or the sum of its agents'.
        gamma: discount per step.
        lr: learning rate, at the beginning.
        anneal_lr: move it to 0 in a straight line over total_frames.
        value_loss: huber or l2.
        huber_delta: where Huber's loss turns linear, in units of returns.
        max_grad_norm: largest gradient norm, for all actors and the mixer separately.
        epsilon_start: probability of a random action at the beginning.
        epsilon_end: that probability after epsilon_frames.
        epsilon_frames: env transitions over which it goes from one to the other in a straight line.

    >>> from ctde_kit.recipes import MatrixTask, PQNConfig, iterate
    >>> config = PQNConfig(
    ...     task=MatrixTask(n_envs=2), frames_per_batch=20, total_frames=40, minibatch_frames=20, epochs=2
    ... )
    >>> [iteration.metrics["num_updates"] for iteration in iterate(config.build())]
    [2, 2]
    """

    continuous: ClassVar[bool | None] = False
    learns_from_older: ClassVar[bool] = False

    algorithm: str = "pqn"
    actor: NetworkConfig = field(default_factory=lambda: MLPNetwork(activation="relu", layer_norm=True))
    frames_per_batch: int = 1_200
    mixer: MixerConfig = field(default_factory=VDNMixerConfig)
    returns: ReturnConfig = field(default_factory=TDLambdaReturns)
    minibatch_frames: int = 300
    sequence_length: int | None = 10
    epochs: int = 4
    last_action: bool = False
    team_reward: str = "mean"
    gamma: float = 0.9
    lr: float = 1e-3
    anneal_lr: bool = True
    value_loss: str = "l2"
    huber_delta: float = 1.0
    max_grad_norm: float = 5.0
    epsilon_start: float = 1.0
    epsilon_end: float = 0.05
    epsilon_frames: int = 100_000

    def __post_init__(self) -> None:
        self.check_run(("pqn",))
        if not self.actor.layer_norm:
            raise UserError("actor.layer_norm=false: without target networks values diverge; use actor.layer_norm=true")
        check_ratio(gamma=self.gamma, epsilon_start=self.epsilon_start, epsilon_end=self.epsilon_end)
        check_positive(
            minibatch_frames=self.minibatch_frames,
            sequence_length=self.sequence_length,
            epochs=self.epochs,
            lr=self.lr,
            huber_delta=self.huber_delta,
            max_grad_norm=self.max_grad_norm,
            epsilon_frames=self.epsilon_frames,
        )
        check_minibatch(self.minibatch_frames, self.frames_per_batch)
        check_choice("team_reward", self.team_reward, ("mean", "sum"))
        check_choice("value_loss", self.value_loss, ("huber", "l2"))
        check_monotonic(self.mixer)

    def policy(self) -> QActorConfig:
        return QActorConfig(
            self.actor, self.last_action, self.epsilon_start, normalize_observations=self.normalize_observations
        )

    def build(self) -> Parts:
        import torch

        run = wiring.begin(self, updates_per_frame=self.epochs / self.minibatch_frames)
        team = ck.TeamSpec.from_env(run.env)
        policy = wiring.team_policy(self, team, run.device)
        actors = wiring.learners_of(policy, ck.MultiAgentQActor)
        learning = wiring.learning_team(team, policy)
        mixer = wiring.mixer(self, learning, run.device)
        observation_norm = wiring.observation_norm(self, team, policy, run.device, mixer)
        reward_norm = wiring.reward_norm(self, learning, run.device, of_team=mixer is not None)
        loss = ck.QMixLoss(
            actors,
            mixer,
            gamma=self.gamma,
            returns=self.returns.build(),
            value_loss=self.value_loss,  # pyright: ignore[reportArgumentType]  # a checked choice
            huber_delta=self.huber_delta,
            use_target_networks=False,
            reward_norm=reward_norm,
        )
        compiles = wiring.compiles_updates(run, *actors.values())
        # On a GPU its count of steps stays there.
        optimizer = torch.optim.RAdam(loss.parameters(), lr=self.lr, capturable=run.device == "cuda")
        team_reward = ck.TeamReward(learning, self.team_reward)  # pyright: ignore[reportArgumentType]  # a checked choice
        return ck.Parts(
            collector=wiring.collector(self, run, team, policy),
            prepare=wiring.one_after_the_other(team_reward, reward_norm),
            buffer=ck.OnPolicyBuffer(
                self.minibatch_frames, wiring.slice_length(self.sequence_length, run.steps_per_batch)
            ),
            update_schedule=ck.training.Epochs(self.epochs),
            update=ck.GradientStep({"team": loss}, optimizer, self.max_grad_norm, compile=compiles),
            policy=policy,
            anneal=wiring.epsilon_and_learning_rate(self, actors.values(), optimizer),
            observation_norm=observation_norm,
        )
