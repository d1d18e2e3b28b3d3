"""Quantities that change over a run: learning rates and exploration, as functions of the frames collected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ctde_kit.errors import UserError


class Annealing:
    """Several annealing functions as one: they are called one after the other.

    Args:
        functions: each takes the frames collected so far.

    >>> from ctde_kit.training import Annealing
    >>> annealing = Annealing(lambda frames: print("rate", frames), lambda frames: print("epsilon", frames))
    >>> annealing(600)
    rate 600
    epsilon 600
    """

    def __init__(self, *functions: Callable[[int], None]):
        self.functions = functions

    def __call__(self, frames: int) -> None:
        for function in self.functions:
            function(frames)


class LinearEpsilon:
    """Changes exploration linearly from ``start`` to ``end`` over the first ``frames`` frames; constant afterwards.

    Args:
        epsilons: the ``epsilon`` buffers of Q actors, or the ``scale`` buffers of noise modules; filled in place.
        start: epsilon, or noise scale, at frame 0.
        end: epsilon, or noise scale, after ``frames``.
        frames: length of the change, at least 1.

    >>> import torch
    >>> from ctde_kit.training import LinearEpsilon
    >>> epsilon = torch.tensor(1.0)
    >>> LinearEpsilon([epsilon], start=1.0, end=0.5, frames=1_000)(500)
    >>> epsilon
    tensor(0.7500)
    """

    def __init__(self, epsilons: list[Tensor], start: float, end: float, frames: int):
        _check_frames("LinearEpsilon", frames)
        self.epsilons, self.start, self.end, self.frames = epsilons, start, end, frames

    def __call__(self, frames: int) -> None:
        done = min(1.0, frames / self.frames)
        for epsilon in self.epsilons:
            epsilon.fill_(self.start + done * (self.end - self.start))


@dataclass(frozen=True)
class LinearLearningRate:
    """Changes a learning rate linearly from ``start`` to ``end`` over the first ``frames`` frames; constant afterwards.

    Args:
        optimizer: whose learning rate is set.
        start: learning rate at frame 0.
        end: learning rate after ``frames``.
        frames: length of the change, at least 1.
        group: index of the parameter group; ``None`` for all groups.

    >>> import torch
    >>> from ctde_kit.training import LinearLearningRate
    >>> optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=0.5)
    >>> LinearLearningRate(optimizer, start=0.5, end=0.0, frames=1_000)(500)
    >>> optimizer.param_groups[0]["lr"]
    0.25
    """

    optimizer: torch.optim.Optimizer
    start: float
    end: float
    frames: int
    group: int | None = None

    def __post_init__(self) -> None:
        _check_frames("LinearLearningRate", self.frames)

    def __call__(self, frames: int) -> None:
        done = min(1.0, frames / self.frames)
        groups = self.optimizer.param_groups
        for group in groups if self.group is None else [groups[self.group]]:
            group["lr"] = self.start + done * (self.end - self.start)


def _check_frames(schedule: str, frames: int) -> None:
    if frames < 1:
        raise UserError(f"{schedule}: frames={frames}: expected 1 or more; the change takes that long")
