"""The directory of one run: its configuration, metrics, checkpoints, plots, videos and summary."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ctde_kit.errors import UserError


@dataclass
class RunDirectory:
    """The files of one run under ``path``; creates the directories and writes metrics and summary.

    ``path`` holds ``config.yaml``, ``metrics.csv``, ``summary.json``, ``checkpoints/``, ``plots/`` and ``videos/``.
    ``metrics.csv`` has one row per iteration: ``frames``, ``seconds``, ``train/...``, ``eval/...``.

    Args:
        path: of the directory; created if it does not exist.
        rows: the rows of ``metrics.csv`` so far.

    Raises:
        UserError: if ``path`` cannot be written.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from ctde_kit.training import RunDirectory
    >>> directory = RunDirectory(Path(tempfile.mkdtemp()) / "run")
    >>> directory.write_row({"frames": 600, "seconds": 1.5, "train/loss_value": 0.25})
    >>> directory.metrics.read_text().splitlines()
    ['frames,seconds,train/loss_value', '600,1.5,0.25']
    """

    path: Path
    rows: list[dict[str, float]] = field(default_factory=list)
    _columns: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.path = Path(self.path)
        try:
            for directory in (self.path, self.checkpoints, self.plots):
                directory.mkdir(parents=True, exist_ok=True)
            probe = self.path / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UserError(
                f"run directory {self.path} cannot be written ({error.strerror}): choose another path"
            ) from error

    @property
    def checkpoints(self) -> Path:
        """Directory of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def plots(self) -> Path:
        """Directory of the PNG plots."""
        return self.path / "plots"

    @property
    def videos(self) -> Path:
        """Directory of the videos; created by the first one."""
        return self.path / "videos"

    @property
    def metrics(self) -> Path:
        """The file ``metrics.csv``."""
        return self.path / "metrics.csv"

    def clear(self) -> None:
        """Remove what a run without a checkpoint has written, and the directories that are empty then."""
        for name in ("config.yaml", "actors.yaml", "metrics.csv"):
            (self.path / name).unlink(missing_ok=True)
        for directory in (self.checkpoints, self.plots, self.videos):
            with contextlib.suppress(OSError):
                directory.rmdir()

    def write_row(self, row: dict[str, float]) -> None:
        """Append a row to ``metrics.csv``; a row with a new column rewrites the whole file."""
        self.rows.append(row)
        new_columns = [name for name in row if name not in self._columns]
        if new_columns:
            self._columns += new_columns
            self._rewrite()
            return
        with open(self.metrics, "a", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    def read_rows(self, frames: int) -> float:
        """Read ``metrics.csv`` and drop rows past ``frames``; returns the ``seconds`` of the last row that is kept."""
        if self.metrics.is_file():
            try:
                rows = list(read_metrics(self.metrics))
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"{self.metrics} cannot be read ({error}): move it away, and resume again") from error
            self.rows += [row for row in rows if row["frames"] <= frames]
        self._columns = list(dict.fromkeys(name for row in self.rows for name in row))
        self._rewrite()
        return self.rows[-1]["seconds"] if self.rows else 0.0

    def _rewrite(self) -> None:
        partial = self.metrics.with_suffix(".partial")
        with open(partial, "w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(self.rows)
        os.replace(partial, self.metrics)

    def write_summary(self, summary: dict[str, Any]) -> Path:
        """Write ``summary.json`` atomically, and return its path."""
        path = self.path / "summary.json"
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(summary, indent=2) + "\n")
        os.replace(partial, path)
        return path


def read_metrics(path: Path) -> Iterator[dict[str, float]]:
    """The rows of a ``metrics.csv``; columns without a value in a row are left out of it.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from ctde_kit.training import RunDirectory, read_metrics
    >>> directory = RunDirectory(Path(tempfile.mkdtemp()))
    >>> directory.write_row({"frames": 600, "seconds": 1.5})
    >>> directory.write_row({"frames": 1200, "seconds": 3.0, "eval/return_mean": 0.5})
    >>> list(read_metrics(directory.metrics))
    [{'frames': 600, 'seconds': 1.5}, {'frames': 1200, 'seconds': 3.0, 'eval/return_mean': 0.5}]
    """
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            values = {name: float(value) for name, value in row.items() if name and value not in ("", None)}
            if values:
                yield {"frames": int(values.pop("frames")), **values}
