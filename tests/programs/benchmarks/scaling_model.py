"""A model of the time that N collectors take for a batch, in few parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Collector:
    """What one collector does for a batch, measured without any other process.

    Args:
        seconds: that its steps take.
        processor_seconds: of them, those in which it computes.
        frames: that it collects.
    """

    seconds: float
    processor_seconds: float
    frames: int


@dataclass(frozen=True)
class Costs:
    """Seconds per batch beside the collectors' steps: ``fixed``, and ``per_collector`` for each one's message."""

    fixed: float
    per_collector: float


def batch_seconds(n: float, collector: Collector, costs: Costs, processors: int | None) -> float:
    """Seconds until a batch of ``n`` collectors is there.

    All collect side by side, and the learner's process takes their messages one after the other. ``processors`` is
    how many all collectors share; ``None``: each has one to itself.
    """
    shared = 0.0 if processors is None else n * collector.processor_seconds / processors
    return costs.fixed + costs.per_collector * n + max(collector.seconds, shared)


def frames_per_second(n: float, collector: Collector, costs: Costs, processors: int | None) -> float:
    """Frames per second of ``n`` collectors together."""
    return n * collector.frames / batch_seconds(n, collector, costs, processors)


def collectors_at_half(collector: Collector, costs: Costs) -> float:
    """For how many collectors the learner's process takes as long for their messages as for all the rest.

    There a collector gives half of what it would give if messages cost nothing; twice as many give a third more.
    """
    return (costs.fixed + collector.seconds) / costs.per_collector


def fit(counts: Sequence[int], beyond: Sequence[float]) -> Costs:
    """The costs that are closest, by least squares, to the seconds per batch ``beyond`` those of one collector's steps.

    Args:
        counts: the number of collectors of each measurement.
        beyond: seconds of each measurement.
    """
    columns = np.stack([np.ones(len(counts)), np.asarray(counts, dtype=float)], axis=1)
    (fixed, per_collector), *_ = np.linalg.lstsq(columns, np.asarray(beyond, dtype=float), rcond=None)
    return Costs(float(fixed), float(per_collector))
