"""A recipe's parts, and the loop over them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from ctde_kit.errors import NotFiniteError

Metrics = dict[str, Tensor]


@dataclass(frozen=True)
class Parts:
    """What a recipe is made of; ``dataclasses.replace(parts, buffer=...)`` swaps one.

    Every part that carries state has ``state_dict`` and ``load_state_dict``.

    Args:
        collector: yields fresh batches ``[n_envs, T]``; has ``frames`` and ``update_policy_weights_``.
        prepare: fresh batch -> what is stored: advantages, value statistics.
        buffer: has ``extend`` and gives minibatches.
        schedule: ``(buffer, update) -> metrics`` of this iteration's updates, one by one: how many epochs or updates,
            warm-up, early stop.
        update: minibatch -> metrics: one gradient step for all groups.
        policy: the greedy policy under ``ExplorationType.DETERMINISTIC``.
        anneal: takes the frames collected so far: learning rates, exploration.
    """

    collector: Any
    prepare: Callable[[TensorDictBase], TensorDictBase]
    buffer: Any
    schedule: Callable[[Any, Callable[[TensorDictBase], Metrics]], Iterable[Metrics]]
    update: Callable[[TensorDictBase], Metrics]
    policy: TensorDictModuleBase
    anneal: Callable[[int], None]


@dataclass(frozen=True)
class Iteration:
    """One pass of the loop.

    Args:
        frames: collected so far, this batch's among them.
        batch: as collected, ``[n_envs, T]``.
        metrics: means over the iteration's updates, and ``num_updates``.
    """

    frames: int
    batch: TensorDictBase
    metrics: dict[str, float]


def iterate(parts: Parts) -> Iterator[Iteration]:
    """Collect, prepare, update, anneal, sync weights, until the collector has its frames.

    Raises:
        NotFiniteError: when a metric of an update is not finite.
    """
    for batch in parts.collector:
        parts.buffer.extend(parts.prepare(batch))
        history = list(parts.schedule(parts.buffer, parts.update))
        frames = parts.collector.frames
        metrics = summarize(history, frames)
        parts.anneal(frames)
        parts.collector.update_policy_weights_()
        yield Iteration(frames, batch, metrics)


def summarize(history: list[Metrics], frames: int) -> dict[str, float]:
    """The mean of each metric over the updates, in one transfer from the device."""
    if not history:
        return {"num_updates": 0}
    names = list(history[0])
    table = torch.stack([torch.stack([row[name].detach().float() for name in names]) for row in history]).cpu()
    # Other metrics are diagnostics, which may overflow without harm.
    learnt = torch.tensor([name.rsplit("/")[-1].startswith(("loss_", "grad_norm")) for name in names])
    finite = torch.isfinite(table) | ~learnt
    if not finite.all():
        update, column = (~finite).nonzero()[0].tolist()
        raise NotFiniteError(
            f"{names[column]} is {table[update, column].item()} in update {update + 1} of {len(history)} "
            f"at {frames} frames: lower the learning rate or the gradient clip, or check the env's rewards"
        )
    return {**dict(zip(names, table.mean(0).tolist(), strict=True)), "num_updates": len(history)}
