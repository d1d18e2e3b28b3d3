"""The parts that a recipe is made of, and what one pass over them yields."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from ctde_kit.protocols import ExperienceBuffer, ExperienceCollector, ObservationStatistics

Metrics = dict[str, Tensor]
Update = Callable[[TensorDictBase], Metrics]


@dataclass(frozen=True)
class Parts:
    """All parts of one training run; ``dataclasses.replace(parts, buffer=...)`` exchanges one of them.

    A checkpoint saves every part that has ``state_dict`` and ``load_state_dict`` (``protocols.Stateful``).

    Args:
        collector: yields fresh batches ``[n_envs, T]``.
        prepare: turns a fresh batch into what is stored, for example by adding advantages.
        buffer: stores prepared batches and gives the minibatches that ``update_schedule`` asks for.
        update_schedule: ``(buffer, update) -> metrics`` of each update of this iteration, one by one. It decides how
            many epochs or updates there are, when updates start and when they stop early.
        update: minibatch -> metrics: one gradient step for all groups.
        policy: acts greedily under ``ExplorationType.DETERMINISTIC``.
        anneal: takes the frames collected so far, and sets learning rates and exploration accordingly.
        observation_norm: takes in each batch after its updates, so that a batch is collected and learned with the same
            statistics; ``None`` where observations are not normalized.

    >>> from dataclasses import replace
    >>> import ctde_kit as ck
    >>> from ctde_kit.recipes import MAPPOConfig, VmasTask
    >>> parts = MAPPOConfig(task=VmasTask("vmas/navigation", n_envs=2)).build()
    >>> replace(parts, buffer=ck.OnPolicyBuffer(minibatch_frames=100)).buffer.minibatch_frames
    100
    """

    collector: ExperienceCollector
    prepare: Callable[[TensorDictBase], TensorDictBase]
    buffer: ExperienceBuffer
    update_schedule: Callable[[Any, Any], Iterable[Metrics]]  # of this `buffer` and `update`, which no type can say
    update: Update
    policy: TensorDictModuleBase
    anneal: Callable[[int], None]
    observation_norm: ObservationStatistics | None = None


@dataclass(frozen=True)
class Iteration:
    """The result of one pass of the training loop.

    Args:
        frames: collected so far, including this batch.
        batch: as collected, ``[n_envs, T]``.
        metrics: the mean of each metric over the iteration's updates, and ``num_updates``.

    >>> from ctde_kit.recipes import MatrixTask, QMIXConfig, iterate
    >>> parts = QMIXConfig(task=MatrixTask(n_envs=2), frames_per_batch=12, total_frames=12).build()
    >>> iteration = next(iterate(parts))
    >>> iteration.frames, iteration.batch.shape, iteration.metrics["num_updates"]
    (12, torch.Size([2, 6]), 1)
    """

    frames: int
    batch: TensorDictBase
    metrics: dict[str, float]
