"""How often a batch is learnt from, and how rates change over a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from tensordict import TensorDictBase

from ctde_kit.training.parts import Metrics


@dataclass(frozen=True)
class Epochs:
    """Passes over the buffer's minibatches.

    Args:
        epochs: passes.
        target_kl: stop the iteration once an epoch's mean ``approx_kl`` exceeds this; ``None`` for never.
    """

    epochs: int
    target_kl: float | None = None

    def __call__(
        self, buffer: Iterable[TensorDictBase], update: Callable[[TensorDictBase], Metrics]
    ) -> Iterator[Metrics]:
        for _ in range(self.epochs):
            divergences = []
            for minibatch in buffer:
                metrics = update(minibatch)
                divergences += [value for name, value in metrics.items() if name.endswith("approx_kl")]
                yield metrics
            if self.target_kl is not None and torch.stack(divergences).mean() > self.target_kl:
                return


@dataclass(frozen=True)
class LinearLearningRate:
    """Moves an optimizer's learning rate in a straight line from ``start`` to ``end`` over ``frames``.

    Args:
        optimizer: whose rate.
        start: at the first frame.
        end: after ``frames``.
        frames: between.
        group: the parameter group; ``None`` for all of them.
    """

    optimizer: torch.optim.Optimizer
    start: float
    end: float
    frames: int
    group: int | None = None

    def __call__(self, frames: int) -> None:
        done = min(1.0, frames / self.frames)
        groups = self.optimizer.param_groups
        for group in groups if self.group is None else [groups[self.group]]:
            group["lr"] = self.start + done * (self.end - self.start)
