"""COMA: policy gradients with a counterfactual baseline for each agent, from a central critic of its every action."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import ctde_kit as ck
from ctde_kit.recipes import wiring
from ctde_kit.recipes.configs.actors import StochasticActorConfig
from ctde_kit.recipes.configs.checks import (
    check_choice,
    check_minibatch,
    check_not_negative,
    check_part,
    check_positive,
    check_ratio,
)
from ctde_kit.recipes.configs.critics import CounterfactualCriticConfig, CriticConfig
from ctde_kit.recipes.configs.networks import MLPNetwork, NetworkConfig
from ctde_kit.recipes.configs.recipe import RecipeConfig
from ctde_kit.recipes.configs.return_forms import ReturnConfig, TDLambdaReturns
from ctde_kit.recipes.configs.target_rules import HardTarget, TargetConfig

if TYPE_CHECKING:
    from ctde_kit import Parts


@dataclass(kw_only=True)
class COMAConfig(RecipeConfig):
    """COMA (Foerster et al. 2018), as data: ``build`` gives the parts; options of all recipes: ``RecipeConfig``.

    Args:
        critic: what the critic sees beside the others' actions, and its network.
        returns: what the critic learns: td_lambda or n_step.
        target: how the target critic follows, in critic steps: hard or polyak.
        minibatch_frames: frames per step of the critic; null for the whole batch. The actors' step is on the whole
            batch, after the critic's.
        epochs: passes of the critic over a batch.
        sequence_length: steps per slice of a recurrent actor's batch; null for the whole batch.
        team_reward: the team's reward is the mean or the sum of its agents'.
        gamma: discount per step.
        lr: learning rate of the actors.
        critic_lr: of the critics; null for lr.
        anneal_lr: move both to 0 in a straight line over total_frames.
        entropy_coeff: weight of the entropy bonus.
        value_loss: of the critics: l2 or huber.
        huber_delta: where Huber's loss turns linear, in units of returns.
        max_grad_norm: largest gradient norm of each network.
        epsilon_start: share of a uniform choice in the policy at the beginning.
        epsilon_end: that share after epsilon_frames.
        epsilon_frames: env transitions over which it goes from one to the other in a straight line.

    >>> from ctde_kit.recipes import COMAConfig, MatrixTask, iterate
    >>> config = COMAConfig(task=MatrixTask(n_envs=2), frames_per_batch=12, total_frames=24, epochs=4)
    >>> [iteration.metrics["num_updates"] for iteration in iterate(config.build())]
    [5, 5]
    """

    continuous: ClassVar[bool | None] = False
    learns_from_older: ClassVar[bool] = False

    algorithm: str = "coma"
    actor: NetworkConfig = field(default_factory=lambda: MLPNetwork(activation="relu"))
    frames_per_batch: int = 600
    critic: CriticConfig = field(default_factory=CounterfactualCriticConfig)
    returns: ReturnConfig = field(default_factory=TDLambdaReturns)
    target: TargetConfig = field(default_factory=lambda: HardTarget(every=10))
    minibatch_frames: int | None = None
    epochs: int = 5
    sequence_length: int | None = None
    team_reward: str = "mean"
    gamma: float = 0.99
    lr: float = 5e-4
    critic_lr: float | None = None
    anneal_lr: bool = False
    entropy_coeff: float = 0.0
    value_loss: str = "l2"
    huber_delta: float = 1.0
    max_grad_norm: float = 10.0
    epsilon_start: float = 0.5
    epsilon_end: float = 0.02
    epsilon_frames: int = 50_000

    def __post_init__(self) -> None:
        self.check_run(("coma",))
        check_ratio(gamma=self.gamma, epsilon_start=self.epsilon_start, epsilon_end=self.epsilon_end)
        check_positive(
            minibatch_frames=self.minibatch_frames,
            epochs=self.epochs,
            sequence_length=self.sequence_length,
            lr=self.lr,
            critic_lr=self.critic_lr,
            huber_delta=self.huber_delta,
            max_grad_norm=self.max_grad_norm,
            epsilon_frames=self.epsilon_frames,
        )
        check_minibatch(self.minibatch_frames or self.frames_per_batch, self.frames_per_batch)
        check_not_negative(entropy_coeff=self.entropy_coeff)
        check_choice("team_reward", self.team_reward, ("mean", "sum"))
        check_choice("value_loss", self.value_loss, ("huber", "l2"))
        fits, python = isinstance(self.critic, CounterfactualCriticConfig), "critic=CounterfactualCriticConfig()"
        found = type(self.critic).__name__
        check_part("coma", fits, expected="critic=counterfactual", python=python, found=found)

    def policy(self) -> StochasticActorConfig:
        return StochasticActorConfig(
            self.actor, None, self.epsilon_start, normalize_observations=self.normalize_observations
        )

    def build(self) -> Parts:
        frames_per_update = self.minibatch_frames or self.frames_per_batch
        run = wiring.begin(self, updates_per_frame=self.epochs / frames_per_update)
        team = wiring.critics_team(run.env, self.critic)
        policy = wiring.team_policy(self, team, run.device)
        actors = wiring.learners_of(policy, ck.MultiAgentActor)
        learning = wiring.learning_team(team, policy)
        wiring.check_one_team(self.task, learning, "team_reward")
        critics = wiring.counterfactual_critics(self.critic, team, learning, run.device)
        observation_norm = wiring.observation_norm(self, team, policy, run.device, *critics.values())
        reward_norm = wiring.reward_norm(self, learning, run.device, of_team=True)
        critic_losses = {
            name: ck.objectives.COMACriticLoss(
                critic,
                value_loss=self.value_loss,  # pyright: ignore[reportArgumentType]  # a checked choice
                huber_delta=self.huber_delta,
            )
            for name, critic in critics.items()
        }
        actor_losses = {
            name: ck.objectives.COMAActorLoss(actor, critics[name], entropy_coeff=self.entropy_coeff)
            for name, actor in actors.items()
        }
        targets = ck.objectives.COMATargets(
            policy, critic_losses, gamma=self.gamma, returns=self.returns.build(), reward_norm=reward_norm
        )
        critic_optimizer = wiring.adam((critics.values(), self.critic_lr or self.lr))
        actor_optimizer = wiring.adam((actors.values(), self.lr))
        compiles = wiring.compiles_updates(run, *actors.values())
        critic_step, actor_step = (
            ck.GradientStep(losses, optimizer, self.max_grad_norm, compile=compiles)
            for losses, optimizer in ((critic_losses, critic_optimizer), (actor_losses, actor_optimizer))
        )
        rules = {name: self.target.build(loss) for name, loss in critic_losses.items()}
        averages = wiring.averaging(self.critic, critics.values(), critic_optimizer)
        team_reward = ck.TeamReward(learning, self.team_reward)  # pyright: ignore[reportArgumentType]  # a checked choice
        recurrent = wiring.is_recurrent(*actors.values())
        return ck.Parts(
            collector=wiring.collector(self, run, team, policy),
            prepare=wiring.one_after_the_other(team_reward, reward_norm, targets),
            buffer=ck.OnPolicyBuffer(
                frames_per_update,
                wiring.sequence_length(self.sequence_length, run.steps_per_batch, recurrent),
                keys=wiring.keys_read([*critic_losses.values(), *actor_losses.values()], team),
            ),
            update_schedule=ck.training.CriticEpochs(self.epochs),
            update=ck.training.CriticThenActor(
                ck.training.UpdateWithTargets(critic_step, {**averages, **rules}), actor_step
            ),
            policy=policy,
            anneal=ck.training.Annealing(
                wiring.epsilon(self, [actor.floor.epsilon for actor in actors.values() if actor.floor is not None]),
                *wiring.learning_rates(self, actor_optimizer),
                *wiring.learning_rates(self, critic_optimizer),
            ),
            observation_norm=observation_norm,
        )
