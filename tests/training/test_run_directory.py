"""The rows of metrics.csv: what a resumed run must find again, and what it drops."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctde_kit.errors import UserError
from ctde_kit.training import RunDirectory, read_metrics
from tests.reliability.faults import flipped, full_disk

ROWS = [
    {"frames": 60, "seconds": 1.0, "train/loss": 0.1},
    {"frames": 120, "seconds": 2.0, "train/loss": 1 / 3, "eval/return_mean": float("nan")},
    {"frames": 180, "seconds": 3.0, "train/loss": 1e-30, "train/num_updates": 6},
]


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    """One with three rows."""
    directory = RunDirectory(tmp_path)
    for row in ROWS:
        directory.write_row(dict(row))
    return directory


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines(keepends=True)


def test_rows_are_read_back_and_later_ones_dropped(directory: RunDirectory, tmp_path: Path) -> None:
    expected = directory.sync_rows()
    directory.write_row({"frames": 240, "seconds": 9.0})
    again = RunDirectory(tmp_path)
    assert again.read_rows(180, expected) == 3.0
    assert repr(again.rows) == repr([{name: float(value) for name, value in row.items()} for row in ROWS]).replace(
        "'frames': 60.0", "'frames': 60"
    ).replace("'frames': 120.0", "'frames': 120").replace("'frames': 180.0", "'frames': 180")
    assert [row["frames"] for row in read_metrics(tmp_path / "metrics.csv")] == [60, 120, 180]
    assert again.sync_rows() == expected


@pytest.mark.parametrize("torn", ["2", "240,4.", "240,4.0,0.5,,", "\x00\x00\x00", "240,4.0,0.5,,6"])
def test_a_torn_last_row_past_the_checkpoint_is_dropped(torn: str, directory: RunDirectory, tmp_path: Path) -> None:
    expected = directory.sync_rows()
    with open(tmp_path / "metrics.csv", "a") as file:
        file.write(torn)
    again = RunDirectory(tmp_path)
    again.read_rows(180, expected)
    assert [row["frames"] for row in again.rows] == [60, 120, 180]


def test_rows_before_the_checkpoint_that_are_missing_are_named(directory: RunDirectory, tmp_path: Path) -> None:
    expected, path = directory.sync_rows(), tmp_path / "metrics.csv"
    header, *rows = lines(path)
    whole = path.read_bytes()
    for content, frames in [
        ("".join([header, rows[0], rows[2]]), "120"),
        ("".join([header, rows[0], rows[1], rows[2].rstrip()]), "180"),  # torn: its last number may be shorter
        (header, "60, 120, 180"),
        ("", "60, 120, 180"),
    ]:
        path.write_text(content)
        with pytest.raises(UserError, match=rf"metrics\.csv: expected 3 rows .*of frames {frames}; restore") as caught:
            RunDirectory(tmp_path).read_rows(180, expected)
        assert "\n" not in str(caught.value)
        assert path.read_text() == content  # nothing more is lost
    path.unlink()
    with pytest.raises(UserError, match="found 0"):
        RunDirectory(tmp_path).read_rows(180, expected)
    path.write_bytes(whole)
    RunDirectory(tmp_path).read_rows(180, expected)


def test_every_flipped_bit_in_a_row_or_the_header_is_noticed_or_harmless(
    directory: RunDirectory, tmp_path: Path
) -> None:
    expected, path = directory.sync_rows(), tmp_path / "metrics.csv"
    before = repr(directory.rows)
    noticed = 0
    for bit in range(8 * path.stat().st_size):
        with flipped(path, bit):
            again = RunDirectory(tmp_path)
            again._rewrite = lambda: None
            try:
                again.read_rows(180, expected)
            except UserError:
                noticed += 1
                continue
            # 1.0 and 1.0 with a tab before it, for example, are one number.
            assert repr([{name: float(value) for name, value in row.items()} for row in again.rows]) == repr(
                [{name: float(value) for name, value in row.items()} for row in directory.rows]
            )
    assert repr(directory.rows) == before
    assert noticed > 0.9 * 8 * path.stat().st_size


def test_a_full_disk_leaves_the_rows_that_were_there(directory: RunDirectory, tmp_path: Path) -> None:
    expected, before = directory.sync_rows(), (tmp_path / "metrics.csv").read_bytes()
    with full_disk(room=len(before) + 3), pytest.raises(OSError, match="File too large"):
        directory.write_row({"frames": 240, "seconds": 4.0})
    assert (tmp_path / "metrics.csv").read_bytes()[: len(before)] == before
    again = RunDirectory(tmp_path)
    again.read_rows(180, expected)
    before = (tmp_path / "metrics.csv").read_bytes()
    with full_disk(room=10), pytest.raises(OSError, match="File too large"):
        again.write_row({"frames": 240, "a new column": 4.0})
    assert (tmp_path / "metrics.csv").read_bytes() == before


def test_what_a_kill_left_half_written_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    ours = ["config.yaml.partial", "metrics.csv.partial", "checkpoints/frames_60.pt.partial"]
    theirs = [
        "notes.partial",
        "checkpoints/frames_best.pt",
        "checkpoints/frames_600 (copy).pt",
        "checkpoints/x.partial",
    ]
    for name in (*ours, *theirs):
        (tmp_path / name).touch()
    RunDirectory(tmp_path)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == set(theirs)
