"""Schedules over a run's frames: learning rates and exploration."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch

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


def learning_rate(
    cfg: WithLearningRate, optimizer: torch.optim.Optimizer, lr: float | None = None, group: int | None = None
) -> LinearLearningRate:
    """The schedule of ``cfg.lr``, or of another rate ``lr``, for one parameter group or all of them."""
    start = cfg.lr if lr is None else lr
    return LinearLearningRate(optimizer, start, 0.0 if cfg.anneal_lr else start, cfg.total_frames, group)


def epsilon_and_learning_rate(
    cfg: WithEpsilon, actors: Iterable[MultiAgentQActor], optimizer: torch.optim.Optimizer
) -> Annealing:
    """The schedules of a recipe whose ``actors`` choose by action values."""
    epsilons = [actor.epsilon for actor in actors]
    epsilon = LinearEpsilon(epsilons, cfg.epsilon_start, cfg.epsilon_end, cfg.epsilon_frames)
    return Annealing(epsilon, learning_rate(cfg, optimizer))
