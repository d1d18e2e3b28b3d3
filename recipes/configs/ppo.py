"""The options of PPO's family, and what they mean for a loss and an estimator of advantages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import ctde_kit as ck
from ctde_kit.recipes.configs.actors import StochasticActorConfig
from ctde_kit.recipes.configs.checks import (
    building,
    check_choice,
    check_minibatch,
    check_not_negative,
    check_positive,
    check_ratio,
)
from ctde_kit.recipes.configs.critics import CriticConfig, ValueCriticConfig
from ctde_kit.recipes.configs.recipe import RecipeConfig
from ctde_kit.recipes.configs.shared_critic import check_shared

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ctde_kit import AdvantageEstimator, GroupSpec, MAPPOLoss, MultiAgentActor, RewardNorm, TeamSpec

    Loss = TypeVar("Loss", bound=MAPPOLoss)


@dataclass(kw_only=True)
class PPOConfig(RecipeConfig):
    """A run of a recipe with PPO's clipped objective, as data; the base of these recipes' configurations.

    Args:
        critic: the critics' layout and network.
        minibatch_frames: frames per gradient step; null for the whole batch.
        epochs: passes over a batch.
        sequence_length: steps per slice of a recurrent network's minibatch; null for the whole batch.
        gamma: discount per step.
        lmbda: decay of the advantage's trace per step.
        lr: learning rate, at the beginning.
        anneal_lr: move it to 0 in a straight line over total_frames.
        clip_epsilon: clip of the ratio.
        clip_value: clip of the value loss in normalized units; null for none.
        entropy_coeff: weight of the entropy bonus.
        samples_mc_entropy: samples for the entropy of continuous actions, which has no closed form.
        critic_coeff: weight of the value loss.
        value_loss: huber or l2.
        max_grad_norm: largest gradient norm of each network.
        value_norm: learn values in normalized units.
        state_dependent_scale: the network gives the deviation of continuous actions; else it is a parameter.
        normalize_advantage: joint, agent or none.
        target_kl: end an iteration once an epoch's KL exceeds this; null for never.
    """

    critic: CriticConfig = field(default_factory=ValueCriticConfig)
    minibatch_frames: int | None = 400
    epochs: int = 10
    sequence_length: int | None = None
    gamma: float = 0.99
    lmbda: float = 0.9
    lr: float = 1e-3
    anneal_lr: bool = True
    clip_epsilon: float = 0.2
    clip_value: float | None = None
    entropy_coeff: float = 0.01
    samples_mc_entropy: int = 1
    critic_coeff: float = 1.0
    value_loss: str = "huber"
    max_grad_norm: float = 5.0
    value_norm: bool = True
    state_dependent_scale: bool = False
    normalize_advantage: str = "joint"
    target_kl: float | None = None

    @property
    def frames_per_update(self) -> int:
        """Frames of a minibatch."""
        return self.minibatch_frames or self.frames_per_batch

    def check_options(self) -> None:
        """Check what these recipes have in common.

        Raises:
            UserError: naming the option.
        """
        check_ratio(gamma=self.gamma, lmbda=self.lmbda)
        check_positive(
            minibatch_frames=self.minibatch_frames,
            epochs=self.epochs,
            samples_mc_entropy=self.samples_mc_entropy,
            sequence_length=self.sequence_length,
            lr=self.lr,
            clip_epsilon=self.clip_epsilon,
            clip_value=self.clip_value,
            max_grad_norm=self.max_grad_norm,
            target_kl=self.target_kl,
        )
        check_minibatch(self.frames_per_update, self.frames_per_batch)
        check_not_negative(entropy_coeff=self.entropy_coeff, critic_coeff=self.critic_coeff)
        check_choice("value_loss", self.value_loss, ("huber", "l2"))
        check_choice("normalize_advantage", self.normalize_advantage, ("joint", "agent", "none"))
        check_shared(self.critic, self.distributed)

    def policy(self) -> StochasticActorConfig:
        return StochasticActorConfig(
            self.actor,
            self.state_dependent_scale,
            value_head=self.critic.shares_actor,
            normalize_observations=self.normalize_observations,
        )

    def adam(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Adam:
        """The optimizer of one learner's parameters."""
        import torch

        return torch.optim.Adam(parameters, lr=self.lr, eps=1e-5, fused=True)

    def objective(
        self,
        kind: type[Loss],
        group: GroupSpec,
        team: TeamSpec,
        actor: MultiAgentActor,
        reward_norm: RewardNorm | None,
        device: str,
        *,
        of_team: bool,
    ) -> tuple[Loss, AdvantageEstimator]:
        """One group's loss, of class ``kind``, and what computes its advantages and value targets."""
        shares_actor = self.critic.shares_actor
        with building("critic.network", self.critic.network):
            critic = actor.agent_network if shares_actor else self.critic.build(team, group).to(device)
        value_norm = ck.ValueNorm().to(device) if self.value_norm else None
        loss = kind(
            actor,
            critic,
            keys=group.keys,
            clip_epsilon=self.clip_epsilon,
            entropy_coeff=self.entropy_coeff,
            samples_mc_entropy=self.samples_mc_entropy,
            critic_coeff=self.critic_coeff,
            value_loss=self.value_loss,  # pyright: ignore[reportArgumentType]  # a checked choice
            clip_value=self.clip_value,
            value_norm=value_norm,
        )
        estimator = ck.AdvantageEstimator(
            critic,
            group.keys,
            gamma=self.gamma,
            lmbda=self.lmbda,
            value_norm=value_norm,
            reward_norm=reward_norm,
            normalize=self.normalize_advantage,  # pyright: ignore[reportArgumentType]  # a checked choice
            of_team=of_team,
        )
        return loss, estimator
