"""The directory of one run: its configuration, metrics, checkpoints, plots, videos and summary."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import shutil
import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ctde_kit.errors import UserError
from ctde_kit.files import JsonObject, replacing

# What a run has written before it ends.
FILES = ("config.yaml", "actors.yaml", "code.yaml", "facts.json", "metrics.csv", "evaluations.jsonl")
# What a killed program leaves of a file that was not whole yet.
PARTIAL = re.compile(rf"({'|'.join(map(re.escape, (*FILES, 'summary.json')))}|frames_[0-9]+\.pt|best\w*\.pt)\.partial")
# How many missing rows an error names at most.
NAMED_ROWS = 5


@dataclass
class RunDirectory:
    """The files of one run under ``path``; creates the directories and writes metrics and summary.

    ``path`` holds ``config.yaml``, ``actors.yaml``, ``code.yaml`` (where a run uses a user's own code), ``facts.json``,
    ``metrics.csv``, ``evaluations.jsonl``, ``summary.json``, ``checkpoints/``, ``plots/`` and ``videos/``.
    ``metrics.csv`` has one row per iteration: ``frames``, ``seconds``, ``train/...``, ``eval/...``.

    Args:
        path: of the directory; created if it does not exist.

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
    _columns: list[str] = field(default_factory=list)
    # Frames and checksum of each row, in turn. The rows themselves are in the file alone, to save a long run's memory.
    _checksums: array[int] = field(default_factory=lambda: array("q"))

    def __post_init__(self) -> None:
        self.path = Path(self.path)
        try:
            for directory in (self.path, self.checkpoints, self.plots):
                directory.mkdir(parents=True, exist_ok=True)
            probe = self.path / ".writable"
            probe.touch()
            probe.unlink()
            for path in (*self.path.iterdir(), *self.checkpoints.iterdir()):
                if PARTIAL.fullmatch(path.name):
                    path.unlink()
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

    @property
    def rows(self) -> list[dict[str, float]]:
        """The rows of ``metrics.csv`` so far, read from it."""
        return list(read_metrics(self.metrics)) if self.metrics.is_file() else []

    @property
    def evaluations(self) -> Path:
        """The file ``evaluations.jsonl``."""
        return self.path / "evaluations.jsonl"

    @property
    def facts(self) -> Path:
        """The file ``facts.json``."""
        return self.path / "facts.json"

    def clear(self) -> None:
        """Remove what a run without a checkpoint has written, and the directories that are empty then."""
        for name in FILES:
            (self.path / name).unlink(missing_ok=True)
        for logger in ("tensorboard", "wandb", "mlflow"):
            shutil.rmtree(self.path / logger, ignore_errors=True)
        (self.path / "mlflow.db").unlink(missing_ok=True)
        for directory in (self.checkpoints, self.plots, self.videos):
            with contextlib.suppress(OSError):
                directory.rmdir()

    def write_row(self, row: dict[str, float]) -> None:
        """Append a row to ``metrics.csv``; a row with a new column rewrites the whole file."""
        new_columns = [name for name in row if name not in self._columns]
        if new_columns:
            self._columns += new_columns
            self._rewrite([*self._written(), row])
        else:
            with open(self.metrics, "a", newline="") as file:
                csv.DictWriter(file, self._columns).writerow(row)
        self._checksums.extend((int(row["frames"]), _checksum(row)))

    def sync_rows(self) -> list[tuple[int, int]]:
        """Put all rows on the disk, so that no checkpoint is ahead of them; returns the frames and checksum of each."""
        if self.metrics.is_file():
            with open(self.metrics, "rb") as file:
                os.fsync(file.fileno())
        return [*zip(self._checksums[::2], self._checksums[1::2], strict=True)]

    def read_rows(self, frames: int, expected: Sequence[Sequence[int]] = ()) -> float:
        """Read ``metrics.csv`` and drop rows past ``frames``; returns the ``seconds`` of the last row that is kept.

        A last row that is torn, or any other that is past ``frames`` and cannot be read, is dropped.

        Args:
            frames: of the checkpoint.
            expected: what ``sync_rows`` returned when it was written.

        Raises:
            UserError: naming rows that are missing or changed.
        """
        rows = kept_rows(self.metrics, frames, expected)
        self._columns = list(dict.fromkeys(name for row in rows for name in row))
        self._rewrite(rows)
        self._checksums = array("q", [number for row in rows for number in (int(row["frames"]), _checksum(row))])
        return rows[-1].get("seconds", 0.0) if rows else 0.0

    def _written(self) -> list[dict[str, str]]:
        """The rows as they are written."""
        if not self.metrics.is_file():
            return []
        with open(self.metrics, newline="") as file:
            return list(csv.DictReader(file))

    def _rewrite(self, rows: Sequence[Mapping[str, object]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns)
        writer.writeheader()
        writer.writerows(rows)
        with replacing(self.metrics) as file:
            file.write(text.getvalue().encode())

    def write_summary(self, summary: JsonObject) -> Path:
        """Write ``summary.json`` whole or not at all, and return its path."""
        path = self.path / "summary.json"
        with replacing(path) as file:
            file.write((json.dumps(summary, indent=2) + "\n").encode())
        return path


def kept_rows(path: Path, frames: int, expected: Sequence[Sequence[int]]) -> list[dict[str, float]]:
    """The rows of a ``metrics.csv`` up to ``frames``; arguments and errors as ``RunDirectory.read_rows`` has them."""
    rows = {int(row["frames"]): row for row in _whole_rows(path) if row["frames"] <= frames}
    checksums = {number: _checksum(row) for number, row in rows.items()}
    missing = [number for number, checksum in expected if checksums.get(number) != checksum]
    if missing:
        named = ", ".join(map(str, missing[:NAMED_ROWS])) + (", ..." if len(missing) > NAMED_ROWS else "")
        raise UserError(
            f"{path}: expected {len(expected)} rows up to the checkpoint of {frames} frames, found "
            f"{len(expected) - len(missing)}; missing or changed: those of frames {named}; restore the file"
        )
    return [*rows.values()]


def _whole_rows(path: Path) -> Iterator[dict[str, float]]:
    """The rows of a ``metrics.csv`` that can be read; those that a kill or a full disk tore are left out."""
    if not path.is_file():
        return
    # A last line without an end may lack the last digits of its last number.
    lines = path.read_bytes().decode(errors="replace").split("\n")[:-1]
    columns: list[str] | None = None
    for line in lines:
        with contextlib.suppress(csv.Error, ValueError, KeyError, OverflowError):
            values = next(csv.reader([line]), [])
            if columns is None:
                columns = values
            else:
                yield _numbers(dict(zip(columns, values, strict=True)))


def _checksum(row: dict[str, float]) -> int:
    """A checksum that a row has before it is written and after it is read back."""
    return zlib.crc32(repr(sorted((name, float(value)) for name, value in row.items())).encode())


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
            values = {name: value for name, value in row.items() if name and value is not None}
            if any(values.values()):
                yield _numbers(values)


def _numbers(row: dict[str, str]) -> dict[str, float]:
    values = {name: float(value) for name, value in row.items() if value != ""}
    return {"frames": int(values.pop("frames")), **values}
