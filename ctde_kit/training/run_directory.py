"""Where a run writes: its configuration, metrics, checkpoints, plots, videos and summary."""

from __future__ import annotations

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
    """``config.yaml``, ``metrics.csv``, ``summary.json``, ``checkpoints/``, ``plots/``, ``videos/`` under ``path``.

    ``metrics.csv`` has a row an iteration: ``frames``, ``seconds``, ``train/...``, ``eval/...``.

    Raises:
        UserError: where ``path`` cannot be written.
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
                f"run directory {self.path} cannot be written ({error.strerror}): choose another with hydra.run.dir=DIR"
            ) from error

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def plots(self) -> Path:
        return self.path / "plots"

    @property
    def videos(self) -> Path:
        return self.path / "videos"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    def write_row(self, row: dict[str, float]) -> None:
        """Append a row; a column not seen before rewrites the file."""
        self.rows.append(row)
        new = [name for name in row if name not in self._columns]
        if new:
            self._columns += new
            self._rewrite()
            return
        with open(self.metrics, "a", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    def read_rows(self, frames: int) -> float:
        """Take over the rows up to ``frames`` and drop those past it; gives the seconds of the last one kept."""
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
        beside = self.metrics.with_suffix(".partial")
        with open(beside, "w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(self.rows)
        os.replace(beside, self.metrics)

    def write_summary(self, summary: dict[str, Any]) -> Path:
        """Write ``summary.json`` beside and rename it."""
        path = self.path / "summary.json"
        beside = path.with_suffix(".partial")
        beside.write_text(json.dumps(summary, indent=2) + "\n")
        os.replace(beside, path)
        return path


def read_metrics(path: Path) -> Iterator[dict[str, float]]:
    """The rows of a ``metrics.csv``; a column that a row has no value for is left out."""
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            values = {name: float(value) for name, value in row.items() if name and value not in ("", None)}
            if values:
                yield {"frames": int(values.pop("frames")), **values}
