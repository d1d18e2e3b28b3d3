"""Statistics over a batch of which several learners hold a part each: some of its items, or some of its agents.

Means under a mask, normalized advantages and running statistics are those of the whole batch then: each learner sums
its own part, and the sums are added up before anything is divided. Without other learners nothing here does anything.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Protocol

import torch
from torch import Tensor

__all__ = [
    "Shards",
    "average_of_all",
    "largest_of_all",
    "mean_of_all",
    "mean_of_all_entries",
    "own_agents",
    "sharing",
    "sum_of_all",
    "sum_over_agents",
]


class Shards(Protocol):
    """The learners among which a batch is split; all of them call these in the same order."""

    @property
    def count(self) -> int:
        """How many there are."""
        ...

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all learners of what each gives, without a gradient."""
        ...

    def max(self, values: Tensor) -> Tensor:
        """The largest of what the learners give, entry by entry, without a gradient."""
        ...


Agents = Mapping[str, slice]
# Of this thread.
_current: ContextVar[Shards | None] = ContextVar("shards", default=None)
_agents: ContextVar[Agents | None] = ContextVar("agents", default=None)


@contextlib.contextmanager
def sharing(shards: Shards, agents: Agents | None = None) -> Iterator[None]:
    """Inside the block batches are parts of a larger one, or all learners have one batch and some of its agents each.

    Args:
        shards: the learners.
        agents: the agents of each group that are this learner's; ``None``: all agents of its part of a larger batch.

    >>> from ctde_kit.shards import sharing, sum_of_all
    >>> class Doubled:
    ...     count = 2
    ...     def sum(self, values):
    ...         return 2 * values
    >>> import torch
    >>> with sharing(Doubled()):
    ...     sum_of_all(torch.tensor(3))
    tensor(6)
    """
    before = _current.get(), _agents.get()
    _current.set(shards)
    _agents.set(agents)
    try:
        yield
    finally:
        _current.set(before[0])
        _agents.set(before[1])


def _shards() -> Shards | None:
    # A graph of torch.compile has no other learners, and cannot read a context.
    return None if torch.compiler.is_compiling() else _current.get()


def sum_of_all(values: Tensor) -> Tensor:
    """The sum of a statistic over all learners; ``values`` itself where each has the whole batch."""
    shards = _shards()
    return values if shards is None or _agents.get() is not None else shards.sum(values)


def largest_of_all(values: Tensor) -> Tensor:
    """The largest of a statistic over all learners; ``values`` itself where each has the whole batch."""
    shards = _shards()
    return values if shards is None or _agents.get() is not None else shards.max(values)


def mean_of_all(total: Tensor, count: Tensor) -> Tensor:
    """A share of a mean: the mean over learners of what this returns is all totals divided by all counts.

    Args:
        total: the sum over this learner's entries, or over its agents'; it may have a gradient.
        count: how many they are.
    """
    shards = _shards()
    if shards is None:
        return total / count.clamp(min=1)
    return total * shards.count / shards.sum(count).clamp(min=1)


def mean_of_all_entries(values: Tensor) -> Tensor:
    """A share of the mean of all entries: the mean over learners of what this returns is that of all their entries."""
    if _shards() is None:
        return values.mean()
    return mean_of_all(values.sum(), torch.tensor(values.numel(), device=values.device))


def average_of_all(values: Tensor) -> Tensor:
    """The mean over learners of what each gives, such as a metric by which all of them decide."""
    shards = _shards()
    return values if shards is None else shards.sum(values) / shards.count


def own_agents(group: str) -> slice | None:
    """The agents of a group that this learner learns for; ``None``: all of them."""
    agents = None if torch.compiler.is_compiling() else _agents.get()
    return None if agents is None else agents[group]


def sum_over_agents(values: Tensor) -> Tensor:
    """What each learner has summed over its own agents, over all agents; ``values`` itself where it has all of them."""
    shards = _shards()
    return values if shards is None or _agents.get() is None else shards.sum(values)
