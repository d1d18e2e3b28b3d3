"""When the members of a population exchange their critics."""

from __future__ import annotations

from typing import Literal

from ctde_kit.errors import UserError

Unit = Literal["frames", "updates"]


class SyncSchedule:
    """An exchange whenever so many frames or updates have passed since the last one, at the end of an iteration.

    With ``end_every`` the interval moves in a straight line from ``every`` to it over the run's frames, in either
    direction: members can exchange often at the beginning and seldom at the end, or the other way round.

    Args:
        every: the interval at the beginning.
        total_frames: of the run.
        end_every: the interval at the end; ``None`` for ``every``.
        unit: what is counted: ``frames`` (env transitions) or ``updates`` (gradient steps).

    Raises:
        UserError: for an interval below 1.

    >>> from ctde_kit.distributed import SyncSchedule
    >>> schedule = SyncSchedule(every=100, total_frames=1000, end_every=400)
    >>> [frames for frames in range(50, 1001, 50) if schedule.is_due(frames, updates=0)]
    [150, 400, 750]
    """

    def __init__(self, every: int, total_frames: int, *, end_every: int | None = None, unit: Unit = "frames") -> None:
        self.every, self.end_every = every, every if end_every is None else end_every
        self.total_frames, self.unit = total_frames, unit
        self.last = 0
        if min(self.every, self.end_every) < 1:
            raise UserError(f"SyncSchedule: every={every}, end_every={end_every}: expected at least 1 of each")

    def interval(self, frames: int) -> float:
        """The interval after so many frames."""
        return self.every + (self.end_every - self.every) * min(frames / self.total_frames, 1.0)

    def is_due(self, frames: int, updates: int) -> bool:
        """Whether there is an exchange now; if so, the next interval begins."""
        count = frames if self.unit == "frames" else updates
        if count - self.last < self.interval(frames):
            return False
        self.last = count
        return True
