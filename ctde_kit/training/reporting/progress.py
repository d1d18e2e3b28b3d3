"""Reports of how far a run is: a bar on a terminal, a line per minute without one."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Protocol

from tqdm import tqdm

Progress = Literal["bar", "lines", "none"]

EVERY = 60.0
"""Seconds between two lines."""


class ProgressReport(Protocol):
    """A function that is told how far the run is after each iteration."""

    def __call__(self, frames: int, returns: str) -> None:
        """Report ``frames``, collected so far, and the ``returns``, in words."""
        ...


@contextmanager
def reporting_progress(kind: Progress, total_frames: int, frames: int) -> Iterator[ProgressReport]:
    """Inside the block, a function that reports on stderr how far the run has come; it starts at ``frames``.

    >>> from ctde_kit.training.reporting.progress import reporting_progress
    >>> with reporting_progress("none", total_frames=600, frames=0) as report:
    ...     report(300, "eval/return 0.5")
    """
    if kind == "lines":
        yield ProgressLines(total_frames, frames)
        return
    with tqdm(total=total_frames, initial=frames, unit="frame", disable=kind == "none", dynamic_ncols=True) as bar:

        def report(frames: int, returns: str) -> None:
            bar.update(frames - bar.n)
            bar.set_postfix_str(returns, refresh=False)

        yield report


class ProgressLines:
    """A line on stderr per minute, for logs: frames, frames per second since the last line, returns, time left."""

    def __init__(self, total_frames: int, frames: int, every: float = EVERY) -> None:
        self.total_frames, self.every = total_frames, every
        self._frames, self._since = frames, time.monotonic()

    def __call__(self, frames: int, returns: str) -> None:
        """Write a line where the last one is a minute old."""
        now = time.monotonic()
        seconds = now - self._since
        if seconds < self.every or frames >= self.total_frames:
            return
        rate = (frames - self._frames) / max(seconds, 1e-9)
        left = _duration((self.total_frames - frames) / max(rate, 1e-9))
        told = [f"{frames} of {self.total_frames} frames", f"{rate:.0f} frames/s", returns, f"{left} left"]
        print(", ".join(filter(None, told)), file=sys.stderr, flush=True)
        self._frames, self._since = frames, now


def _duration(seconds: float) -> str:
    minutes = int(seconds / 60 + 0.5)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
