"""Flipped bits in all files that a run is read from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ctde_kit.errors import UserError
from ctde_kit.recipes.commands.loading import read_config
from ctde_kit.recipes.wiring.saved_runs import SavedRun
from ctde_kit.training import RunDirectory, latest_checkpoint, read_checkpoint
from tests.reliability.cases import CASES, run_command
from tests.reliability.faults import flipped, random_bits

CASE = "QMIX, episodes on disk"
# Bits at the beginning of a checkpoint, and at its end: zip's header; its directory and the checksum.
HEADER, TAIL = 8 * 64, 8 * 250


def damaged_run(cwd: Path) -> Path:
    """A run whose replay is in its checkpoint."""
    recipe, arguments = CASES[CASE]
    ended = run_command(cwd, recipe, [*arguments, "hydra.run.dir=damaged"])
    assert ended.code == 0, ended.stderr
    return cwd / "damaged"


def flip_all(run: Path, elsewhere: int) -> dict[str, tuple[int, int]]:
    """By file and place, how many flipped bits were refused in one line, and how many there were."""
    path = latest_checkpoint(run / "checkpoints")
    size = 8 * path.stat().st_size
    directory = range(size - 8 * _directory_bytes(path), size)
    content = read_checkpoint(path, algorithm="qmix")

    def checkpoint() -> None:
        read_checkpoint(path, algorithm="qmix")

    def metrics() -> None:
        directory = RunDirectory(run)
        directory._rewrite = lambda: None
        directory.read_rows(content["frames"], content["rows"].tolist())
        if repr(directory.rows) != rows:
            raise AssertionError("rows were read that were never written")

    expected = RunDirectory(run)
    expected.read_rows(content["frames"], content["rows"].tolist())
    rows = repr(expected.rows)
    step = max(1, len(directory) // (20 * elsewhere))
    return {
        "checkpoint, header": _refused(path, range(HEADER), checkpoint),
        "checkpoint, directory and tail": _refused(path, [*directory[::step], *range(size - TAIL, size)], checkpoint),
        "checkpoint, elsewhere (parameters, replay, random states)": _refused(
            path, random_bits(path, elsewhere), checkpoint
        ),
        "config.yaml": _refused(run / "config.yaml", _bits(run / "config.yaml", elsewhere), lambda: read_config(run)),
        "actors.yaml": _refused(
            run / "actors.yaml",
            _bits(run / "actors.yaml", elsewhere),
            lambda: SavedRun(run).actor_config("agents"),
        ),
        "metrics.csv": _refused(run / "metrics.csv", _bits(run / "metrics.csv", elsewhere), metrics),
    }


def _directory_bytes(path: Path) -> int:
    """Bytes from the start of the zip archive's directory to the end of the file."""
    content = path.read_bytes()
    return len(content) - content.index(b"PK\x01\x02")


def _bits(path: Path, most: int) -> list[int]:
    return random_bits(path, min(most, 8 * path.stat().st_size))


def _refused(path: Path, bits: Any, read: Callable[[], Any]) -> tuple[int, int]:
    read()
    refused = 0
    for bit in bits:
        with flipped(path, bit):
            try:
                read()
            except UserError as error:
                refused += "\n" not in str(error) and path.name in str(error)
    read()
    return refused, len(bits)
