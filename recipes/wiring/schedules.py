"""Schedules over a run's frames: learning rates and exploration."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor, nn

from ctde_kit.modules import MultiAgentQActor
from ctde_kit.training import Annealing, LinearEpsilon, LinearLearningRate


class WithLearningRate(Protocol):
    """A recipe whose learning rate may fall to 0."""

    lr: float
    anneal_lr: bool
    total_frames: int


class WithEpsilon(WithLearningRate, Protocol):
    """A recipe whose agents explore with a probability that falls."""

    epsilon_start: float
    epsilon_end: float
    epsilon_frames: int


def adam(*learners: tuple[Iterable[nn.Module | None], float]) -> torch.optim.Adam:
    """Adam with a group of parameters for each set of modules, at its own learning rate."""
    groups: list[dict[str, object]] = []
    for modules, lr in learners:
        parameters = dict.fromkeys(p for module in modules if module is not None for p in module.parameters())
        groups.append({"params": list(parameters), "lr": lr})
    # Not a larger eps: policy gradients of small rewards are below 1e-5 per weight.
    return torch.optim.Adam(groups, eps=1e-8, fused=True)


def learning_rate(cfg: WithLearningRate, optimizer: torch.optim.Optimizer) -> LinearLearningRate:
    """The schedule of ``cfg.lr`` for all parameters."""
    return LinearLearningRate(optimizer, cfg.lr, 0.0 if cfg.anneal_lr else cfg.lr, cfg.total_frames)


def learning_rates(cfg: WithLearningRate, optimizer: torch.optim.Optimizer) -> list[LinearLearningRate]:
    """The schedules of the groups of parameters, each from its own rate."""
    starts = [float(group["lr"]) for group in optimizer.param_groups]
    return [
        LinearLearningRate(optimizer, start, 0.0 if cfg.anneal_lr else start, cfg.total_frames, index)
        for index, start in enumerate(starts)
    ]


def epsilon_and_learning_rate(
    cfg: WithEpsilon, actors: Iterable[MultiAgentQActor], optimizer: torch.optim.Optimizer
) -> Annealing:
    """The schedules of a recipe whose ``actors`` choose by action values."""
    return Annealing(epsilon(cfg, [actor.epsilon for actor in actors]), learning_rate(cfg, optimizer))


def epsilon(cfg: WithEpsilon, epsilons: list[Tensor]) -> LinearEpsilon:
    """The schedule of the actors' ``epsilons``."""
    return LinearEpsilon(epsilons, cfg.epsilon_start, cfg.epsilon_end, cfg.epsilon_frames)
