"""MAPPO: PPO with a centralized critic; IPPO is the same recipe with a decentralized one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from ctde_kit.recipes.actors import stochastic_actor
from ctde_kit.recipes.checks import check_choice, check_not_negative, check_positive, check_ratio
from ctde_kit.recipes.cli import command_line
from ctde_kit.recipes.compiling import resolve_compile
from ctde_kit.recipes.config import (
    CheckpointConfig,
    EvaluationConfig,
    check_run,
    resolve_device,
)
from ctde_kit.recipes.critics import averaging
from ctde_kit.recipes.envs import critics_team, with_transforms
from ctde_kit.recipes.groups import team_policy
from omegaconf import MISSING
from torch import nn

from ctde_kit.collectors import RolloutCollector
from ctde_kit.data import OnPolicyBuffer
from ctde_kit.errors import UserError
from ctde_kit.modules import AgentNetwork, MultiAgentActor, ValueNorm
from ctde_kit.objectives import AdvantageEstimator, MAPPOLoss
from ctde_kit.specs import GroupSpec, TeamSpec
from ctde_kit.training import Epochs, GradientStep, LinearLearningRate, Parts, UpdateWithTargets


@dataclass
class MAPPOConfig:
    """Options of ``ctde-mappo`` and ``ctde-ippo``.

    Args:
        algorithm: mappo or ippo.
        task: what to learn.
        actor: the actors' network.
        critic: the critics' layout and network.
        logger: where metrics go beside metrics.csv.
        opponents: by group, who acts for it without learning: ctde_kit.recipes.opponents.
        initial: by group, the run whose policy it goes on from; critics and optimizers start anew.
        seed: of everything that is random.
        device: auto, cpu or cuda.
        compile: rollouts and updates as compiled graphs: auto (where the run is long enough), on or off.
        total_frames: env transitions to collect.
        frames_per_batch: frames an iteration, a multiple of task.n_envs.
        minibatch_frames: frames a gradient step.
        epochs: passes over a batch.
        sequence_length: steps a slice of a recurrent network's minibatch; null for the whole batch.
        gamma: discount a step.
        lmbda: decay of the advantage's trace a step.
        lr: learning rate, at the beginning.
        anneal_lr: move it to 0 in a straight line over total_frames.
        clip_epsilon: clip of the ratio.
        clip_value: clip of the value loss in normalized units; null for none.
        entropy_coeff: weight of the entropy bonus.
        samples_mc_entropy: samples for the entropy of continuous actions, which has no closed form.
        critic_coeff: weight of the value loss.
        loss_critic_type: huber or l2.
        max_grad_norm: largest gradient norm of each network.
        value_norm: learn values in normalized units.
        state_dependent_scale: the network gives the deviation of continuous actions; else it is a parameter.
        normalize_advantage: joint, agent or none.
        target_kl: end an iteration once an epoch's KL exceeds this; null for never.
        evaluation: greedy evaluation, how often and how long.
        checkpoint: how often.
        video: write a GIF of a greedy episode at the end.
    """

    algorithm: str = "mappo"
    task: Any = MISSING
    actor: Any = MISSING
    critic: Any = MISSING
    logger: Any = MISSING
    opponents: dict[str, Any] = field(default_factory=dict)
    initial: dict[str, str] = field(default_factory=dict)
    seed: int = 0
    device: str = "auto"
    compile: str = "auto"
    total_frames: int = 300_000
    frames_per_batch: int = 6_000
    minibatch_frames: int = 400
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
    loss_critic_type: str = "huber"
    max_grad_norm: float = 5.0
    value_norm: bool = True
    state_dependent_scale: bool = False
    normalize_advantage: str = "joint"
    target_kl: float | None = None
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    video: bool = False
    _target_: str = "ctde_kit.recipes.mappo.MAPPOConfig"

    def __post_init__(self) -> None:
        check_choice("algorithm", self.algorithm, ("mappo", "ippo"))
        check_run(self, parts=("task", "actor", "critic", "logger"))
        check_ratio(gamma=self.gamma, lmbda=self.lmbda)
        check_positive(
            frames_per_batch=self.frames_per_batch,
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
        check_not_negative(entropy_coeff=self.entropy_coeff, critic_coeff=self.critic_coeff)
        check_choice("loss_critic_type", self.loss_critic_type, ("huber", "l2"))
        check_choice("normalize_advantage", self.normalize_advantage, ("joint", "agent", "none"))


def build_actor(cfg: MAPPOConfig, group: GroupSpec, team: TeamSpec) -> MultiAgentActor:
    """One group's actor."""
    return stochastic_actor(team, group, cfg.actor, state_dependent_scale=cfg.state_dependent_scale)


def make_objective(
    cfg: MAPPOConfig, group: GroupSpec, team: TeamSpec, actor: MultiAgentActor, device: str
) -> tuple[MAPPOLoss, AdvantageEstimator]:
    """One group's loss, and what computes its advantages and value targets."""
    critic = cfg.critic.build(team, group).to(device)
    value_norm = ValueNorm().to(device) if cfg.value_norm else None
    loss = MAPPOLoss(
        actor,
        critic,
        keys=group.keys,
        clip_epsilon=cfg.clip_epsilon,
        entropy_coeff=cfg.entropy_coeff,
        samples_mc_entropy=cfg.samples_mc_entropy,
        critic_coeff=cfg.critic_coeff,
        value_loss=cfg.loss_critic_type,  # type: ignore[arg-type]
        clip_value=cfg.clip_value,
        value_norm=value_norm,
    )
    estimator = AdvantageEstimator(
        critic,
        group.keys,
        gamma=cfg.gamma,
        lmbda=cfg.lmbda,
        value_norm=value_norm,
        normalize=cfg.normalize_advantage,  # type: ignore[arg-type]
    )
    return loss, estimator


def build(cfg: MAPPOConfig) -> Parts:
    """Wire MAPPO's parts."""
    torch.manual_seed(cfg.seed)
    device = resolve_device(cfg.device)
    base_env = cfg.task.build(seed=cfg.seed, device=device)
    compiling = resolve_compile(
        cfg.compile, base_env, total_frames=cfg.total_frames, updates_per_frame=cfg.epochs / cfg.minibatch_frames
    )
    team = critics_team(base_env, cfg.critic)

    policy = team_policy(cfg, team, build_actor, device)
    losses, estimators = nn.ModuleDict(), nn.ModuleDict()
    read: set[Any] = {group.keys.mask for group in team}
    learners: dict[str, Any] = policy.learners
    for name, actor in learners.items():
        losses[name], estimators[name] = make_objective(cfg, team[name], team, actor, device)
        read.update(losses[name].in_keys)  # type: ignore[arg-type]

    optimizer = torch.optim.Adam(losses.parameters(), lr=cfg.lr, eps=1e-5, fused=True)
    recurrent = any(module.recurrent for module in losses.modules() if isinstance(module, AgentNetwork))
    if cfg.sequence_length is not None and not recurrent:
        raise UserError("sequence_length: these networks are feed-forward; leave it out, or use network@actor=gru")
    length = cfg.frames_per_batch // base_env.batch_size[0]
    # A recurrent network's unrolled sequence is too long a graph.
    step = GradientStep(losses, optimizer, cfg.max_grad_norm, compile=compiling.updates and not recurrent)
    averages = averaging(cfg.critic, [loss.critic_network for loss in losses.values()], optimizer)  # type: ignore[misc]
    return Parts(
        collector=RolloutCollector(
            with_transforms(base_env, team, policy),
            policy,
            frames_per_batch=cfg.frames_per_batch,
            total_frames=cfg.total_frames,
            compile=compiling.rollouts,
        ),
        prepare=nn.Sequential(*estimators.values()),
        buffer=OnPolicyBuffer(
            cfg.minibatch_frames, (cfg.sequence_length or length) if recurrent else None, keys=sorted(read, key=str)
        ),
        schedule=Epochs(cfg.epochs, cfg.target_kl),
        update=UpdateWithTargets(step, averages) if averages else step,
        policy=policy,
        anneal=LinearLearningRate(optimizer, cfg.lr, 0.0 if cfg.anneal_lr else cfg.lr, cfg.total_frames),
    )


main = command_line("mappo")

if __name__ == "__main__":
    main()
