"""The parts that a recipe is made of, and what one pass over them yields."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from ctde_kit.protocols import ExperienceBuffer, ExperienceCollector

Metrics = dict[str, Tensor]
Update = Callable[[TensorDictBase], Metrics]


@dataclass(frozen=True)
class Parts:
    """All parts of one training run; ``dataclasses.replace(parts, buffer=...)`` swaps one of them.

    A checkpoint saves every part that has ``state_dict`` and ``load_state_dict`` (``protocols.Stateful``).

    Args:
        collector: yields fresh batches ``[n_envs, T]``.
        prepare: fresh batch -> what is stored, for example with advantages added.
        buffer: stores prepared batches and gives the minibatches that ``update_schedule`` asks for.
        update_schedule: ``(buffer, update) -> metrics`` of each update of this iteration, one by one. It decides how
            many epochs or updates there are, when updates start and when they stop early.
        update: minibatch -> metrics: one gradient step for all groups.
        policy: acts greedily under ``ExplorationType.DETERMINISTIC``.
        anneal: takes the frames collected so far, and sets learning rates and exploration accordingly.
    """

    collector: ExperienceCollector
    prepare: Callable[[TensorDictBase], TensorDictBase]
    buffer: ExperienceBuffer
    update_schedule: Callable[[Any, Update], Iterable[Metrics]]
    update: Update
    policy: TensorDictModuleBase
    anneal: Callable[[int], None]


@dataclass(frozen=True)
class Iteration:
    """The result of one pass of the training loop.

    Args:
        frames: collected so far, including this batch.
        batch: as collected, ``[n_envs, T]``.
        metrics: the mean of each metric over the iteration's updates, and ``num_updates``.
    """

    frames: int
    batch: TensorDictBase
    metrics: dict[str, float]
