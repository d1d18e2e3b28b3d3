"""Schedules of exploration, and several schedules as one."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


class Annealing:
    """Several schedules in frames, one after the other.

    Args:
        schedules: take the frames collected so far.
    """

    def __init__(self, *schedules: Callable[[int], None]):
        self.schedules = schedules

    def __call__(self, frames: int) -> None:
        for schedule in self.schedules:
            schedule(frames)


class LinearEpsilon:
    """Moves how much actors explore in a straight line from ``start`` to ``end`` over ``frames``.

    Args:
        epsilons: the ``epsilon`` buffers of Q actors, or the ``scale`` buffers of noises.
        start: a ratio, or a noise's scale.
        end: likewise.
        frames: from the first frame on.
    """

    def __init__(self, epsilons: list[Tensor], start: float, end: float, frames: int):
        self.epsilons, self.start, self.end, self.frames = epsilons, start, end, frames

    def __call__(self, frames: int) -> None:
        done = min(1.0, frames / self.frames)
        for epsilon in self.epsilons:
            epsilon.fill_(self.start + done * (self.end - self.start))
