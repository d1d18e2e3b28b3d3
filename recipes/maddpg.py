"""MADDPG: deterministic actors, critics of joint actions; IDDPG and FACMAC are the same recipe with other parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ctde_kit as ck
from ctde_kit.recipes import wiring
from ctde_kit.recipes.configs.actors import DeterministicActorConfig
from ctde_kit.recipes.configs.checks import check_choice, check_not_negative, check_part, check_positive, check_ratio
from ctde_kit.recipes.configs.critics import CriticConfig, check_decentralized, own_first_critic
from ctde_kit.recipes.configs.explorations import ExplorationConfig, GaussianExploration
from ctde_kit.recipes.configs.mixers import MixerConfig, NoMixer
from ctde_kit.recipes.configs.networks import MLPNetwork, NetworkConfig
from ctde_kit.recipes.configs.recipe import RecipeConfig
from ctde_kit.recipes.configs.replays import ReplayConfig
from ctde_kit.recipes.configs.return_forms import NStepReturns, ReturnConfig
from ctde_kit.recipes.configs.target_rules import PolyakTarget, TargetConfig

if TYPE_CHECKING:
    from ctde_kit import MADDPGLoss, Parts, RewardNorm, TeamPolicy
    from ctde_kit.objectives import PolicyInference


@dataclass(kw_only=True)
class MADDPGConfig(RecipeConfig):
    """MADDPG (Lowe et al. 2017), IDDPG and FACMAC, as data: ``build`` gives the parts; other options: ``RecipeConfig``.

    IDDPG is ``algorithm="iddpg"`` with ``critic=ValueCriticConfig(sees="observation")``, FACMAC ``algorithm="facmac"``
    with that critic and ``mixer=QMixerConfig()``.

    Args:
        critic: the critics' layout and network: centralized, own_first, decentralized, state, agent_state, attention.
        mixer: none; qmix or vdn for a critic of the team (FACMAC).
        exploration: gaussian or ornstein_uhlenbeck for continuous actions, gumbel for discrete ones.
        replay: transitions, sequences or episodes, and where they are kept.
        returns: what critics learn: n_step or td_lambda.
        target: how target networks follow: polyak or hard.
        updates_per_frame: gradient steps for each frame collected.
        learning_starts: frames before the first gradient step.
        hidden_from: recurrent actors start a sequence from the stored hidden state (stored) or from zero.
        other_actions: the others' actions in an actor's loss: of the replay, or current ones, as always with a mixer.
        minimax_epsilon: step by which others' actions are moved against each agent (M3DDPG); null for MADDPG.
        infer_policies: agents' targets take the others' next actions as they believe them to be, not as they are.
        inference_entropy: weight of the beliefs' entropy.
        inference_deviation: of Gaussian beliefs of continuous policies, in units of action.
        twin_critics: two critics per group, and targets of the smaller value (MATD3); without a mixer.
        smoothing_deviation: of the noise on target actors' continuous actions (MATD3), in halves of their range; null
            for none.
        smoothing_limit: that noise's largest absolute value, in the same units.
        policy_every: updates of the critics per update of the actors (MATD3: 2, with target.every=2).
        ensemble_size: sub-policies per agent, one of which it follows in an episode; 1 for a single policy.
        team_weight: share of the group's mean in each agent's reward, from 0 to 1; without a mixer.
        team_reward: with a mixer, the team's reward is the mean or the sum of its agents'.
        action_regularization: weight of the mean square of the actors' outputs.
        temperature: of the softmax whose gradient discrete actions get.
        gamma: discount per step.
        lr: learning rate of the actors.
        critic_lr: of the critics and the mixer; null for lr.
        anneal_lr: move both to 0 in a straight line over total_frames.
        value_loss: of the critics: l2 or huber.
        huber_delta: where Huber's loss turns linear, in units of returns.
        max_grad_norm: largest gradient norm, for all actors, all first critics, all second ones, the mixer and the
            beliefs separately.

    >>> from ctde_kit.recipes import MADDPGConfig, ReplayConfig, VmasTask, iterate
    >>> config = MADDPGConfig(
    ...     task=VmasTask("vmas/simple_spread", n_envs=2), frames_per_batch=24, total_frames=48,
    ...     replay=ReplayConfig(batch_size=8),
    ... )
    >>> [iteration.metrics["num_updates"] for iteration in iterate(config.build())]
    [2, 2]
    """

    algorithm: str = "maddpg"
    actor: NetworkConfig = field(default_factory=lambda: MLPNetwork(activation="relu"))
    critic: CriticConfig = field(default_factory=own_first_critic)
    mixer: MixerConfig = field(default_factory=NoMixer)
    exploration: ExplorationConfig = field(default_factory=GaussianExploration)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    returns: ReturnConfig = field(default_factory=NStepReturns)
    target: TargetConfig = field(default_factory=PolyakTarget)
    updates_per_frame: float = 1 / 12
    learning_starts: int = 0
    hidden_from: str = "stored"
    other_actions: str = "replay"
    minimax_epsilon: float | None = None
    infer_policies: bool = False
    inference_entropy: float = 1e-3
    inference_deviation: float = 0.1
    twin_critics: bool = False
    smoothing_deviation: float | None = None
    smoothing_limit: float = 0.5
    policy_every: int = 1
    ensemble_size: int = 1
    team_weight: float = 0.0
    team_reward: str = "mean"
    action_regularization: float = 1e-3
    temperature: float = 1.0
    gamma: float = 0.95
    lr: float = 5e-4
    critic_lr: float | None = None
    anneal_lr: bool = False
    value_loss: str = "l2"
    huber_delta: float = 1.0
    max_grad_norm: float = 5.0

    def __post_init__(self) -> None:
        self.check_run(("maddpg", "iddpg", "facmac"))
        check_ratio(gamma=self.gamma, team_weight=self.team_weight)
        check_positive(
            updates_per_frame=self.updates_per_frame,
            temperature=self.temperature,
            lr=self.lr,
            critic_lr=self.critic_lr,
            huber_delta=self.huber_delta,
            max_grad_norm=self.max_grad_norm,
            inference_deviation=self.inference_deviation,
            ensemble_size=self.ensemble_size,
            policy_every=self.policy_every,
        )
        check_not_negative(
            smoothing_deviation=self.smoothing_deviation,
            smoothing_limit=self.smoothing_limit,
            learning_starts=self.learning_starts,
            minimax_epsilon=self.minimax_epsilon,
            inference_entropy=self.inference_entropy,
            action_regularization=self.action_regularization,
        )
        check_choice("hidden_from", self.hidden_from, ("stored", "zero"))
        check_choice("other_actions", self.other_actions, ("replay", "current"))
        check_choice("team_reward", self.team_reward, ("mean", "sum"))
        check_choice("value_loss", self.value_loss, ("huber", "l2"))
        if self.algorithm == "iddpg":
            check_decentralized("iddpg", self.critic)
        if self.algorithm == "facmac":
            fits = not isinstance(self.mixer, NoMixer)
            check_part("facmac", fits, expected="mixer=qmix", python="mixer=QMixerConfig()", found="mixer=none")

    @property
    def learns_by_agent(self) -> bool:
        return isinstance(self.mixer, NoMixer) and not self.infer_policies

    def policy(self) -> DeterministicActorConfig:
        return DeterministicActorConfig(
            self.actor,
            self.exploration,
            self.temperature,
            self.ensemble_size,
            normalize_observations=self.normalize_observations,
        )

    def build(self) -> Parts:
        run = wiring.begin(self, updates_per_frame=self.updates_per_frame)
        team = wiring.critics_team(run.env, self.critic)
        policy = wiring.team_policy(self, team, run.device)
        actors: dict[str, Any] = policy.learners
        learning = wiring.learning_team(team, policy)
        wiring.say_agents_are_alike(self.actor, self.critic, learning)
        critics = wiring.critics_of_actions(self.critic, team, learning, run.device)
        twins = wiring.critics_of_actions(self.critic, team, learning, run.device) if self.twin_critics else {}
        wiring.check_sees_others(
            critics.values(),
            other_actions=self.other_actions,
            minimax_epsilon=self.minimax_epsilon,
            infer_policies=self.infer_policies,
        )
        mixer = wiring.mixer(self, learning, run.device)
        inference = wiring.policy_inference(self, team, run.device) if self.infer_policies else None
        readers = [*critics.values(), *twins.values(), mixer, inference]
        observation_norm = wiring.observation_norm(self, team, policy, run.device, *readers)
        reward_norm = wiring.reward_norm(self, learning, run.device, of_team=mixer is not None)
        loss = self._loss(policy, critics, twins, mixer, inference, reward_norm)
        recurrent = wiring.is_recurrent(*actors.values(), *critics.values())
        wiring.check_replay_form(self.replay, self.returns, recurrent)

        optimizer = wiring.adam((actors.values(), self.lr), (readers, self.critic_lr or self.lr))
        compiles = wiring.compiles_updates(run, *actors.values(), *critics.values())
        step = ck.GradientStep(
            {"team": loss},
            optimizer,
            self.max_grad_norm,
            every={"loss_actor": self.policy_every} if self.policy_every > 1 else None,
            compile=compiles,
        )
        averages = wiring.averaging(self.critic, [*critics.values(), *twins.values()], optimizer)
        team_reward = ck.TeamReward(learning, self.team_reward)  # pyright: ignore[reportArgumentType]  # a checked choice
        return ck.Parts(
            collector=wiring.collector(self, run, team, policy),
            prepare=wiring.one_after_the_other(team_reward, reward_norm),
            buffer=self.replay.build(keys=loss.stored_keys, device=run.device, max_steps=self.task.episode_steps),
            update_schedule=ck.training.UpdatesPerFrame(self.updates_per_frame, self.learning_starts),
            update=ck.training.UpdateWithTargets(step, {**averages, "team": self.target.build(loss)}),
            policy=policy,
            anneal=ck.training.Annealing(
                ck.training.LinearEpsilon(
                    [actor.noise.scale for actor in actors.values()],
                    self.exploration.start,
                    self.exploration.end,
                    self.exploration.frames,
                ),
                *wiring.learning_rates(self, optimizer),
            ),
            observation_norm=observation_norm,
        )

    def _loss(
        self,
        policy: TeamPolicy,
        critics: dict[str, Any],
        twins: dict[str, Any],
        mixer: Any,
        inference: PolicyInference | None,
        reward_norm: RewardNorm | None,
    ) -> MADDPGLoss:
        objectives, deviation = ck.objectives, self.smoothing_deviation
        adversary = None if self.minimax_epsilon is None else objectives.MinimaxAdversary(self.minimax_epsilon)
        smoothing = None if deviation is None else objectives.TargetPolicySmoothing(deviation, self.smoothing_limit)
        return ck.MADDPGLoss(
            policy.actors,
            critics,
            mixer,
            gamma=self.gamma,
            twin_critics=twins or None,
            smoothing=smoothing,
            other_actions=self.other_actions,  # pyright: ignore[reportArgumentType]  # a checked choice
            returns=self.returns.build(),
            team_weight=self.team_weight,
            action_regularization=self.action_regularization,
            value_loss=self.value_loss,  # pyright: ignore[reportArgumentType]  # a checked choice
            huber_delta=self.huber_delta,
            inference=inference,
            adversary=adversary,
            burn_in=self.replay.form.burn_in_steps,
            use_stored_hidden=self.hidden_from == "stored",
            reward_norm=reward_norm,
        )
