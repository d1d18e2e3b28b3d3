"""The training loop as a generator: ``iterate(parts)`` yields one ``Iteration`` per collected batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import torch
from tensordict import TensorDictBase
from torch import Tensor

from ctde_kit.errors import NotFiniteError
from ctde_kit.finite import check_finite
from ctde_kit.protocols import JoinsParts
from ctde_kit.shards import average_of_all
from ctde_kit.training.parts import Iteration, Metrics, Parts


def iterate(parts: Parts) -> Iterator[Iteration]:
    """The training loop: yields one ``Iteration`` per collected batch, until all frames are collected.

    Each pass collects a batch, prepares and stores it, updates the networks, anneals, moves the statistics of
    observations, and gives the collector the new weights.

    Raises:
        NotFiniteError: when an observation or reward, or a loss or gradient norm of an update, is not finite.

    >>> import ctde_kit as ck
    >>> from ctde_kit.recipes import MatrixTask, QMIXConfig
    >>> parts = QMIXConfig(task=MatrixTask(n_envs=2), frames_per_batch=12, total_frames=24).build()
    >>> for iteration in ck.iterate(parts):
    ...     print(iteration.frames, iteration.metrics["num_updates"])
    12 1
    24 1
    """
    together = parts.collector if isinstance(parts.collector, JoinsParts) else None
    if together is not None:
        together.join(parts)
    for batch in parts.collector:
        frames = parts.collector.frames
        with nullcontext() if together is None else together.learning():
            metrics = _learn(parts, batch, frames)
        parts.collector.update_policy_weights_()
        yield Iteration(frames, batch, metrics)


def _learn(parts: Parts, batch: TensorDictBase, frames: int) -> dict[str, float]:
    """Learn from a fresh batch; the metrics of its updates."""
    check_finite(batch, frames)
    parts.buffer.extend(parts.prepare(batch))
    metrics = summarize(list(parts.update_schedule(parts.buffer, parts.update)), frames)
    parts.anneal(frames)
    if parts.observation_norm is not None:
        parts.observation_norm.update(batch)
    return metrics


def summarize(history: list[Metrics], frames: int) -> dict[str, float]:
    """Each metric's mean over the updates that have it, and ``num_updates``.

    Metrics are copied from the device in one transfer for all updates that have the same ones. Several learners that
    share gradients have the means over all of them.

    Args:
        history: the metrics of each update; updates of different learners have different names.
        frames: collected so far, for the error message.

    Raises:
        NotFiniteError: when a loss or gradient norm is not finite.
    """
    if not history:
        return {"num_updates": 0}
    indices: dict[tuple[str, ...], list[int]] = {}
    for index, row in enumerate(history):
        indices.setdefault(tuple(row), []).append(index)
    means: dict[str, float] = {}
    counts: dict[str, int] = {}
    for names, rows in indices.items():
        table = torch.stack([torch.stack([history[i][name].detach().float() for name in names]) for i in rows])
        table = average_of_all(table).cpu()
        _check_finite(table, names, rows, len(history), frames)
        for name, mean in zip(names, table.mean(0).tolist(), strict=True):
            before, counts[name] = counts.get(name, 0), counts.get(name, 0) + len(rows)
            means[name] = mean if before == 0 else (before * means[name] + len(rows) * mean) / counts[name]
    return {**means, "num_updates": len(history)}


def _check_finite(table: Tensor, names: Sequence[str], rows: Sequence[int], n_updates: int, frames: int) -> None:
    """Raise ``NotFiniteError`` for a loss or a gradient norm.

    ``rows`` says which of the ``n_updates`` updates each row of the ``table`` is.
    """
    # Other metrics are diagnostics, which may overflow without harm.
    must_be_finite = torch.tensor([name.rsplit("/")[-1].startswith(("loss_", "grad_norm")) for name in names])
    acceptable = torch.isfinite(table) | ~must_be_finite
    if not acceptable.all():
        update, column = (~acceptable).nonzero()[0].tolist()
        raise NotFiniteError(
            f"{names[column]} is {table[update, column].item()} in update {rows[update] + 1} of {n_updates} "
            f"at {frames} frames: lower the learning rate or the gradient clip, or check the env's rewards"
        )
