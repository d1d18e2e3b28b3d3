"""MASAC: stochastic actors that are paid for entropy, critics of joint actions; ISAC has decentralized critics."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import ctde_kit as ck
from ctde_kit.recipes import wiring
from ctde_kit.recipes.configs.actors import StochasticActorConfig
from ctde_kit.recipes.configs.checks import check_choice, check_not_negative, check_positive, check_ratio
from ctde_kit.recipes.configs.critics import CriticConfig, check_decentralized, own_first_critic
from ctde_kit.recipes.configs.information_bounds import MutualInformationConfig, NoMutualInformation
from ctde_kit.recipes.configs.networks import MLPNetwork, NetworkConfig
from ctde_kit.recipes.configs.recipe import RecipeConfig
from ctde_kit.recipes.configs.replays import ReplayConfig
from ctde_kit.recipes.configs.return_forms import NStepReturns, ReturnConfig
from ctde_kit.recipes.configs.target_rules import PolyakTarget, TargetConfig

if TYPE_CHECKING:
    from ctde_kit import Parts


@dataclass(kw_only=True)
class MASACConfig(RecipeConfig):
    """MASAC (Haarnoja et al. 2018, per agent) and ISAC, as data: ``build`` gives the parts.

    ISAC is ``algorithm="isac"`` with ``critic=ValueCriticConfig(sees="observation")``.

    Args:
        critic: the critics' layout and network: centralized, own_first, decentralized, state, agent_state, attention.
        twin_critics: two critics per group, whose smaller value counts; else one.
        replay: transitions, sequences or episodes, and where they are kept.
        returns: what critics learn: n_step or td_lambda.
        target: how target critics follow: polyak or hard.
        mutual_information: bonus for mutual information between agents' actions: none, or variational (VM3-AC).
        updates_per_frame: gradient steps for each frame collected.
        learning_starts: frames before the first gradient step.
        hidden_from: recurrent actors start a sequence from the stored hidden state (stored) or from zero.
        other_actions: the others' actions in an actor's loss: of the replay, or current ones.
        alpha_init: temperature, the weight of the entropy, at the beginning.
        fixed_alpha: it stays there; else it learns to keep the entropy at its target.
        share_alpha: one temperature per group; else one per agent.
        target_entropy: of one agent, in nats (of continuous actions in halves of their range); null: minus the number
            of its action's dimensions, or target_entropy_weight times the logarithm of the number of its allowed
            choices.
        target_entropy_weight: for discrete actions, from 0 to 1.
        team_weight: share of the group's mean in each agent's reward, from 0 to 1.
        gamma: discount per step.
        lr: learning rate of the actors.
        critic_lr: of the critics; null for lr.
        alpha_lr: of the temperatures; null for lr.
        anneal_lr: move all of them to 0 in a straight line over total_frames.
        value_loss: of the critics: l2 or huber.
        huber_delta: where Huber's loss turns linear, in units of returns.
        max_grad_norm: largest gradient norm, for all actors, all first critics, all second ones, the temperatures and
            the predictors of actions separately.

    >>> from ctde_kit.recipes import MASACConfig, ReplayConfig, VmasTask, iterate
    >>> config = MASACConfig(
    ...     task=VmasTask("vmas/navigation", n_envs=2), frames_per_batch=24, total_frames=48,
    ...     replay=ReplayConfig(batch_size=8),
    ... )
    >>> [iteration.metrics["num_updates"] for iteration in iterate(config.build())]
    [2, 2]
    """

    algorithm: str = "masac"
    actor: NetworkConfig = field(default_factory=lambda: MLPNetwork(activation="relu"))
    critic: CriticConfig = field(default_factory=own_first_critic)
    twin_critics: bool = True
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    returns: ReturnConfig = field(default_factory=NStepReturns)
    target: TargetConfig = field(default_factory=PolyakTarget)
    mutual_information: MutualInformationConfig = field(default_factory=NoMutualInformation)
    updates_per_frame: float = 1 / 12
    learning_starts: int = 0
    hidden_from: str = "stored"
    other_actions: str = "replay"
    alpha_init: float = 0.05
    fixed_alpha: bool = False
    share_alpha: bool = True
    target_entropy: float | None = None
    target_entropy_weight: float = 0.98
    team_weight: float = 0.0
    gamma: float = 0.9
    lr: float = 5e-4
    critic_lr: float | None = None
    alpha_lr: float | None = None
    anneal_lr: bool = False
    value_loss: str = "l2"
    huber_delta: float = 1.0
    max_grad_norm: float = 5.0

    def __post_init__(self) -> None:
        self.check_run(("masac", "isac"))
        # More than the largest entropy is reached by no policy, and its temperature would rise for ever.
        check_ratio(gamma=self.gamma, team_weight=self.team_weight, target_entropy_weight=self.target_entropy_weight)
        check_positive(
            updates_per_frame=self.updates_per_frame,
            alpha_init=self.alpha_init,
            lr=self.lr,
            critic_lr=self.critic_lr,
            alpha_lr=self.alpha_lr,
            huber_delta=self.huber_delta,
            max_grad_norm=self.max_grad_norm,
        )
        check_not_negative(learning_starts=self.learning_starts)
        check_choice("hidden_from", self.hidden_from, ("stored", "zero"))
        check_choice("other_actions", self.other_actions, ("replay", "current"))
        check_choice("value_loss", self.value_loss, ("huber", "l2"))
        if self.algorithm == "isac":
            check_decentralized("isac", self.critic)

    @property
    def learns_by_agent(self) -> bool:
        return isinstance(self.mutual_information, NoMutualInformation)

    def policy(self) -> StochasticActorConfig:
        return StochasticActorConfig(
            self.actor,
            None,
            normalize_observations=self.normalize_observations,
            latent_dim=self.mutual_information.latent_size,
        )

    def build(self) -> Parts:
        run = wiring.begin(self, updates_per_frame=self.updates_per_frame)
        team = wiring.critics_team(run.env, self.critic)
        policy = wiring.team_policy(self, team, run.device, latent_dim=self.mutual_information.latent_size)
        actors = wiring.learners_of(policy, ck.MultiAgentActor)
        learning = wiring.learning_team(team, policy)
        wiring.say_agents_are_alike(self.actor, self.critic, learning)
        critics = wiring.critics_of_actions(self.critic, team, learning, run.device)
        twins = wiring.critics_of_actions(self.critic, team, learning, run.device) if self.twin_critics else {}
        all_critics = [*critics.values(), *twins.values()]
        wiring.check_sees_others(critics.values(), other_actions=self.other_actions)
        information = wiring.mutual_information(self, learning, run.device)
        observation_norm = wiring.observation_norm(self, team, policy, run.device, *all_critics, information)
        reward_norm = wiring.reward_norm(self, learning, run.device)
        loss = ck.objectives.MASACLoss(
            policy.actors,
            critics,
            twins or None,
            gamma=self.gamma,
            other_actions=self.other_actions,  # pyright: ignore[reportArgumentType]  # a checked choice
            alpha_init=self.alpha_init,
            fixed_alpha=self.fixed_alpha,
            share_alpha=self.share_alpha,
            target_entropy=self.target_entropy,
            target_entropy_weight=self.target_entropy_weight,
            returns=self.returns.build(),
            team_weight=self.team_weight,
            value_loss=self.value_loss,  # pyright: ignore[reportArgumentType]  # a checked choice
            huber_delta=self.huber_delta,
            burn_in=self.replay.form.burn_in_steps,
            use_stored_hidden=self.hidden_from == "stored",
            reward_norm=reward_norm,
            mutual_information=information,
        )
        recurrent = wiring.is_recurrent(*actors.values(), *critics.values())
        wiring.check_replay_form(self.replay, self.returns, recurrent)
        optimizer = wiring.adam(
            (actors.values(), self.lr),
            (all_critics, self.critic_lr or self.lr),
            *([] if self.fixed_alpha else [([loss.temperatures], self.alpha_lr or self.lr)]),
            *(
                []
                if information is None
                else [([information], self.mutual_information.rate(self.critic_lr or self.lr))]
            ),
        )
        compiles = wiring.compiles_updates(run, *actors.values(), *critics.values())
        step = ck.GradientStep({"team": loss}, optimizer, self.max_grad_norm, compile=compiles)
        averages = wiring.averaging(self.critic, all_critics, optimizer)
        return ck.Parts(
            collector=wiring.collector(self, run, team, policy),
            prepare=wiring.one_after_the_other(reward_norm),
            buffer=self.replay.build(keys=loss.stored_keys, device=run.device, max_steps=self.task.episode_steps),
            update_schedule=ck.training.UpdatesPerFrame(self.updates_per_frame, self.learning_starts),
            update=ck.training.UpdateWithTargets(step, {**averages, "team": self.target.build(loss)}),
            policy=policy,
            anneal=ck.training.Annealing(*wiring.learning_rates(self, optimizer)),
            observation_norm=observation_norm,
        )
