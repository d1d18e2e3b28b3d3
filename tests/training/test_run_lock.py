"""One writer per run directory, and failed starts that leave nothing in the way."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ctde_kit.errors import UserError
from ctde_kit.recipes import MatrixTask, load
from ctde_kit.recipes.commands.loading import read_config
from ctde_kit.recipes.commands.running import resume, start
from ctde_kit.training.run_lock import LOCK, sole_writer
from tests.forked import Forked
from tests.recipes.small import small_config


def test_another_process_is_told_who_writes_and_may_once_it_was_killed(tmp_path: Path) -> None:
    def hold(say: Callable[[str], None], ask: Callable[[], str]) -> None:
        with sole_writer(tmp_path):
            say("held")
            ask()

    holder = Forked(hold)
    assert holder.said() == "held"
    message = rf"is in use by process {holder.pid} on host {socket.gethostname()}: "
    for config in (small_config(), small_config(seed=1)):
        with pytest.raises(UserError, match=message):
            start(config, tmp_path)
    os.kill(holder.pid, signal.SIGKILL)
    assert holder.wait() == -signal.SIGKILL
    with sole_writer(tmp_path):
        assert (tmp_path / ".owner").read_text().startswith(f"process {os.getpid()} ")


def test_a_run_in_use_is_read_and_not_written(tmp_path: Path) -> None:
    start(small_config(total_frames=60), tmp_path / "run")
    with sole_writer(tmp_path / "run"):
        # Some versions of filelock truncate the lock's empty file, which changes its time.
        files = [path for path in (tmp_path / "run").rglob("*") if path.is_file() and path.name != LOCK]
        before = {path: path.stat().st_mtime_ns for path in files}
        time.sleep(0.01)
        assert load(tmp_path / "run").frames == 60
        with pytest.raises(UserError, match="is in use by process"):
            resume(read_config(tmp_path / "run"), tmp_path / "run")
        assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_start_that_failed_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with pytest.raises(UserError, match="has no renderer"):
        start(small_config(task=MatrixTask(), frames_per_batch=64, video=True), path)
    assert not (path / "config.yaml").exists()
    assert start(small_config(total_frames=60), path)["frames"] == 60


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_anew(tmp_path: Path) -> None:
    start(small_config(total_frames=60), tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        path.unlink()
    (tmp_path / "run" / "summary.json").unlink()
    assert start(small_config(total_frames=120, seed=3), tmp_path / "run")["frames"] == 120
    assert read_config(tmp_path / "run").seed == 3
