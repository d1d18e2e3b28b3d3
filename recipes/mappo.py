"""MAPPO: PPO with a centralized critic; IPPO is the same recipe with a decentralized one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import ctde_kit as ck
from ctde_kit.errors import UserError
from ctde_kit.recipes import wiring
from ctde_kit.recipes.configs.actors import StochasticActorConfig
from ctde_kit.recipes.configs.checks import (
    check_choice,
    check_minibatch,
    check_not_negative,
    check_positive,
    check_ratio,
)
from ctde_kit.recipes.configs.critics import CriticConfig, ValueCriticConfig, check_decentralized
from ctde_kit.recipes.configs.recipe import RecipeConfig

if TYPE_CHECKING:
    from ctde_kit import AdvantageEstimator, GroupSpec, MAPPOLoss, MultiAgentActor, Parts, RewardNorm, TeamSpec


@dataclass(kw_only=True)
class MAPPOConfig(RecipeConfig):
    """MAPPO (Yu et al. 2022), IPPO and A2C, as data: ``build`` gives the parts; see also ``RecipeConfig``.

    IPPO is ``algorithm="ippo"`` with ``critic=ValueCriticConfig(sees="observation")``. A2C (Mnih et al. 2016) is
    ``algorithm="a2c"`` with ``epochs=1`` and ``minibatch_frames=None``: there the ratio is always 1, so that the
    clipped objective has the gradient of A2C.

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

    >>> from ctde_kit.recipes import MAPPOConfig, VmasTask, iterate
    >>> task = VmasTask("vmas/navigation", n_envs=2, max_steps=5)
    >>> config = MAPPOConfig(task=task, frames_per_batch=20, total_frames=40, minibatch_frames=10, epochs=1)
    >>> [iteration.frames for iteration in iterate(config.build())]
    [20, 40]
    """

    algorithm: str = "mappo"
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

    def __post_init__(self) -> None:
        self.check_run(("mappo", "ippo", "a2c"))
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
        check_minibatch(self.minibatch_frames or self.frames_per_batch, self.frames_per_batch)
        check_not_negative(entropy_coeff=self.entropy_coeff, critic_coeff=self.critic_coeff)
        check_choice("value_loss", self.value_loss, ("huber", "l2"))
        if self.algorithm == "ippo":
            check_decentralized("ippo", self.critic)
        if self.algorithm == "a2c" and (self.epochs, self.minibatch_frames) != (1, None):
            raise UserError(
                "algorithm=a2c: expected epochs=1 and minibatch_frames=null, one gradient step per batch, found "
                f"epochs={self.epochs} and minibatch_frames={self.minibatch_frames}; leave them out, or run ctde-mappo"
            )
        check_choice("normalize_advantage", self.normalize_advantage, ("joint", "agent", "none"))

    def policy(self) -> StochasticActorConfig:
        return StochasticActorConfig(
            self.actor, self.state_dependent_scale, normalize_observations=self.normalize_observations
        )

    def build(self) -> Parts:
        import torch

        frames_per_update = self.minibatch_frames or self.frames_per_batch
        run = wiring.begin(self, updates_per_frame=self.epochs / frames_per_update)
        team = wiring.critics_team(run.env, self.critic)
        policy = wiring.team_policy(self, team, run.device)
        learning = wiring.learning_team(team, policy)
        reward_norm = wiring.reward_norm(self, learning, run.device)
        losses: dict[str, MAPPOLoss] = {}
        estimators: dict[str, AdvantageEstimator] = {}
        for name, actor in wiring.learners_of(policy, ck.MultiAgentActor).items():
            losses[name], estimators[name] = self._objective(team[name], team, actor, reward_norm, run.device)

        observation_norm = wiring.observation_norm(self, team, policy, run.device, *losses.values())
        recurrent = wiring.is_recurrent(*losses.values())
        parameters = torch.nn.ModuleList(losses.values()).parameters()
        optimizer = torch.optim.Adam(parameters, lr=self.lr, eps=1e-5, fused=True)
        compiles = wiring.compiles_updates(run, *losses.values())
        step = ck.GradientStep(losses, optimizer, self.max_grad_norm, compile=compiles)
        averages = wiring.averaging(self.critic, [loss.critic_network for loss in losses.values()], optimizer)
        return ck.Parts(
            collector=wiring.collector(self, run, team, policy),
            prepare=wiring.one_after_the_other(reward_norm, torch.nn.Sequential(*estimators.values())),
            buffer=ck.OnPolicyBuffer(
                frames_per_update,
                wiring.sequence_length(self.sequence_length, run.steps_per_batch, recurrent),
                keys=wiring.keys_read(losses.values(), team),
            ),
            update_schedule=ck.training.Epochs(self.epochs, self.target_kl),
            update=ck.training.UpdateWithTargets(step, averages) if averages else step,
            policy=policy,
            anneal=wiring.learning_rate(self, optimizer),
            observation_norm=observation_norm,
        )

    def _objective(
        self, group: GroupSpec, team: TeamSpec, actor: MultiAgentActor, reward_norm: RewardNorm | None, device: str
    ) -> tuple[MAPPOLoss, AdvantageEstimator]:
        """One group's loss, and what computes its advantages and value targets."""
        critic = self.critic.build(team, group).to(device)
        value_norm = ck.ValueNorm().to(device) if self.value_norm else None
        loss = ck.MAPPOLoss(
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
        )
        return loss, estimator
