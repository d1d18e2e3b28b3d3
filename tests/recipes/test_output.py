"""What a run prints without a terminal, and that nobody need listen."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ctde_kit.recipes.commands.lasting_output import LastingStream
from tests.recipes.command_line import ENVIRONMENT, call_here, command
from tests.recipes.small import SMALL_OVERRIDES


@pytest.mark.parametrize(
    "redirection",
    [pytest.param("| head -n 1", marks=pytest.mark.slow, id="head"), pytest.param("<&- >&- 2>&-", id="closed")],
)
@pytest.mark.slow
def test_closed_output_ends_nothing(redirection: str, tmp_path: Path) -> None:
    line = subprocess.list2cmdline(command("mappo", *SMALL_OVERRIDES, "total_frames=120", "hydra.run.dir=run"))
    script = f"set -o pipefail; {line} {redirection}"
    result = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "run" / "summary.json").is_file()
    assert "Traceback" not in result.stderr
    if "head" in redirection:
        assert result.stdout == f"run directory: {tmp_path / 'run'}\n"
    # Nothing that was printed went into a file of the run.
    text = "".join(
        path.read_text() for path in (tmp_path / "run").iterdir() if path.suffix in (".csv", ".yaml", ".json")
    )
    assert "run directory" not in text


def test_resume_and_sweeps_say_where_they_are(tmp_path: Path) -> None:
    short = [*SMALL_OVERRIDES, "total_frames=60"]
    swept = call_here(tmp_path, "mappo", "hydra.mode=MULTIRUN", "seed=0,1", *short, "hydra.sweep.dir=sweep")
    assert swept.stdout.splitlines()[-1] == f"2 runs: {tmp_path / 'sweep'}"
    assert "\r" not in swept.stdout + swept.stderr
    resumed = call_here(tmp_path, "mappo", "resume=sweep/0_seed_0", "total_frames=120")
    assert resumed.stdout.splitlines()[:2] == [
        "going on from 60 frames, to 120",
        f"run directory: {tmp_path / 'sweep' / '0_seed_0'}",
    ]


def test_frames_that_are_rounded_up_are_said(tmp_path: Path) -> None:
    result = call_here(tmp_path, "mappo", *SMALL_OVERRIDES, "total_frames=61")
    assert result.stdout.splitlines()[0] == (
        "total_frames=61: 120 frames will be collected, the next multiple of frames_per_batch=60"
    )
    assert "after 120 frames" in result.stdout


def test_a_full_disk_behind_stdout_ends_nothing() -> None:
    stream = LastingStream(open("/dev/full", "w"))  # noqa: SIM115
    assert stream.write("a line\n" * 10_000) > 0
    stream.flush()
    stream.write("another\n")
    stream.flush()
    stream.close()
