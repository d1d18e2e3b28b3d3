"""The training loop as a generator: ``iterate(parts)`` yields one ``Iteration`` per collected batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ctde_kit.errors import NotFiniteError
from ctde_kit.finite import check_finite
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
    for batch in parts.collector:
        check_finite(batch, parts.collector.frames)
        parts.buffer.extend(parts.prepare(batch))
        history = list(parts.update_schedule(parts.buffer, parts.update))
        frames = parts.collector.frames
        metrics = summarize(history, frames)
        parts.anneal(frames)
        if parts.observation_norm is not None:
            parts.observation_norm.update(batch)
        parts.collector.update_policy_weights_()
        yield Iteration(frames, batch, metrics)


def summarize(history: list[Metrics], frames: int) -> dict[str, float]:
    """Each metric's mean over the updates that gave it, and ``num_updates``; copied from the device in one transfer.

    Args:
        history: the metrics of each update.
        frames: collected so far, for the error message.

    Raises:
        NotFiniteError: when a loss or gradient norm is not finite.
    """
    if not history:
        return {"num_updates": 0}
    kinds: dict[tuple[str, ...], list[int]] = {}
    for index, row in enumerate(history):
        kinds.setdefault(tuple(row), []).append(index)
    flat = torch.cat([torch.stack([value.detach().float() for value in row.values()]) for row in history]).cpu()
    rows = dict(enumerate(flat.split([len(row) for row in history])))
    metrics: dict[str, float] = {}
    for names, updates in kinds.items():
        table = torch.stack([rows[update] for update in updates])
        _check_metrics_finite(table, names, updates, len(history), frames)
        metrics |= dict(zip(names, table.mean(0).tolist(), strict=True))
    return {**metrics, "num_updates": len(history)}


def _check_metrics_finite(
    table: Tensor, names: Sequence[str], updates: Sequence[int], n_updates: int, frames: int
) -> None:
    """Raise ``NotFiniteError`` for a loss or gradient norm in ``table``, which has a row per update of ``updates``."""
    # Other metrics are diagnostics, which may overflow without harm.
    must_be_finite = torch.tensor([name.rsplit("/")[-1].startswith(("loss_", "grad_norm")) for name in names])
    acceptable = torch.isfinite(table) | ~must_be_finite
    if not acceptable.all():
        row, column = (~acceptable).nonzero()[0].tolist()
        raise NotFiniteError(
            f"{names[column]} is {table[row, column].item()} in update {updates[row] + 1} of {n_updates} "
            f"at {frames} frames: lower the learning rate or the gradient clip, or check the env's rewards"
        )
