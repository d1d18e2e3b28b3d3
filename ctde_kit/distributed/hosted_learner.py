"""One of several learners in a process of its own, as that process sees it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch

from ctde_kit.distributed.gradients import AverageGradients, average_gradients
from ctde_kit.distributed.shard_rollouts import ShardRollouts
from ctde_kit.protocols import StateDict
from ctde_kit.shards import sharing
from ctde_kit.training import Iteration, Parts, iterate, random_state, restore_random_state, stateful_parts


class HostedLearner:
    """Learns from batches of its own, in step with the learners of other ranks.

    Args:
        make: builds the parts of a run; their collector has no end.
        rank: of this learner.
        count: how many there are.
        threads: of the CPU that torch computes with here.
    """

    def __init__(self, make: Callable[[], Parts], rank: int, count: int, threads: int | None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.rank, self.count = rank, count
        self.parts = self._built(make())
        self._iterations: Iterator[Iteration] = iter(())
        self._average: AverageGradients | None = None

    def _built(self, parts: Parts) -> Parts:
        return ShardRollouts.of(parts, self.count)

    def begin(self, address: str, timeout: float) -> None:
        """Meet the others."""
        self._average = AverageGradients(address, rank=self.rank, count=self.count, timeout=timeout)
        average_gradients(self.parts, self._average)
        self._iterations = iterate(self.parts)

    def take(self, states: StateDict) -> None:
        """Start with the networks, optimizers and statistics of rank 0."""
        for name, part in stateful_parts(self.parts).items():
            if name in states:
                part.load_state_dict(states[name])

    def advance(self) -> None:
        """Collect a batch and learn from it."""
        with self._in_step() as average, sharing(average):
            next(self._iterations)

    @contextlib.contextmanager
    def _in_step(self) -> Iterator[AverageGradients]:
        """A block that the others wait for: where it raises, what they wait for fails."""
        assert self._average is not None
        try:
            yield self._average
        except Exception:
            self._average.leave()
            raise

    def state(self) -> StateDict:
        """Of all parts and random generators, for a checkpoint."""
        parts = {name: part.state_dict() for name, part in stateful_parts(self.parts).items()}
        return {"parts": parts, "random": random_state()}

    def restore(self, state: StateDict) -> None:
        """Go on from ``state``."""
        self.take(state["parts"])
        # With another number of frames the schedules are others now.
        self.parts.anneal(self.parts.collector.frames)
        restore_random_state(state["random"])
