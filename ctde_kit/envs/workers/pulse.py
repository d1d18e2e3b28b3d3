"""What each worker is doing now, in memory that it shares with the parent, so that one that hangs can be named."""

from __future__ import annotations

import mmap
from collections.abc import Sequence

# What a worker can be doing.
ACTIVITIES = ("nothing", "the factory", "the first reset", "sharing memory", "reset", "step", "render", "close")
_FIELDS = 3


class Pulse:
    """For every worker: how many things it has begun, what it is doing and with which env; made before the forks."""

    def __init__(self, n_workers: int) -> None:
        self._values = memoryview(mmap.mmap(-1, n_workers * _FIELDS * 8)).cast("q")

    def beat(self, worker: int, doing: str, env: int | None = None) -> None:
        """Say that ``worker`` begins something, with ``env`` or with all of its own."""
        place = worker * _FIELDS
        self._values[place + 1] = -1 if env is None else env
        self._values[place + 2] = ACTIVITIES.index(doing)
        self._values[place] += 1

    def beats(self, workers: Sequence[int]) -> dict[int, int]:
        """How many things each of ``workers`` has begun."""
        return {worker: self._values[worker * _FIELDS] for worker in workers}

    def doing(self, worker: int) -> str:
        """What ``worker`` is doing, in words."""
        _, env, doing = self._values[worker * _FIELDS : (worker + 1) * _FIELDS]
        return ACTIVITIES[doing] + ("" if env < 0 else f" of env {env}")
