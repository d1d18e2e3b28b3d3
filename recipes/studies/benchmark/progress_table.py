"""The progress table of a benchmark."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import TextIO

from ctde_kit.recipes.studies.benchmark.plan import PlannedRun, Status

HEAD = ("task", "recipe", "ended", "now", "failed", "mean return of ended runs")
# Seconds between tables on a terminal.
REDRAW = 1.0


def progress_table(runs: Iterable[PlannedRun], running: Iterable[PlannedRun] = ()) -> list[str]:
    """The lines of a table with one row per task and recipe.

    Args:
        runs: all runs of the benchmark.
        running: the runs in progress.
    """
    rows: dict[tuple[str, str], list[PlannedRun]] = {}
    for run in runs:
        rows.setdefault((run.task, run.label), []).append(run)
    running = list(running)
    cells = [HEAD, *((*pair, *_cells(members, running)) for pair, members in rows.items())]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEAD))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def _cells(members: list[PlannedRun], running: list[PlannedRun]) -> tuple[str, str, str, str]:
    statuses = [run.status for run in members]
    results = [result for run in members if (result := run.result()) is not None]
    now = [f"seed {run.seed}: {run.frames():,} frames" for run in members if run in running]
    failed = [str(run.seed) for run, status in zip(members, statuses, strict=True) if status is Status.FAILED]
    return (
        f"{statuses.count(Status.ENDED)} of {len(members)}",
        ", ".join(now) or "-",
        f"seed {', '.join(failed)}" if failed else "-",
        f"{sum(results) / len(results):.3f}" if results else "-",
    )


class Progress:
    """Shows how far a benchmark is: on a terminal a table that is redrawn in place, else one line per ended run.

    Args:
        runs: all runs of the benchmark.
        stream: where to write; standard output by default.
    """

    def __init__(self, runs: list[PlannedRun], stream: TextIO | None = None):
        self.runs, self.stream = runs, stream or sys.stdout
        self._drawn, self._last = 0, float("-inf")
        self._statuses = {run: run.status for run in runs}

    def __call__(self, running: list[PlannedRun]) -> None:
        """Redraw the table, or print a line for each run that has ended since the last call."""
        if self.stream.isatty():
            if time.monotonic() - self._last >= REDRAW:
                self._draw(running)
                self._last = time.monotonic()
            return
        for run, before in self._statuses.items():
            if run not in running and before is not Status.ENDED and run.status in (Status.ENDED, Status.FAILED):
                if run.status is not before:
                    self._say(run)
                self._statuses[run] = run.status

    def close(self) -> None:
        """Show the final table."""
        self._draw([])

    def _say(self, run: PlannedRun) -> None:
        ended = sum(status is Status.ENDED for status in self._statuses.values())
        ended += run.status is Status.ENDED
        result = run.result()
        shown = "failed" if result is None else f"return {result:.3f}"
        print(f"{run.name}: {shown} ({ended} of {len(self.runs)} ended)", file=self.stream, flush=True)

    def _draw(self, running: list[PlannedRun]) -> None:
        if self._drawn:
            self.stream.write(f"\x1b[{self._drawn}F\x1b[J")
        lines = progress_table(self.runs, running)
        print("\n".join(lines), file=self.stream, flush=True)
        self._drawn = len(lines) if self.stream.isatty() else 0
