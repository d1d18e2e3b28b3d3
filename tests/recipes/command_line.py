"""Recipes called as from a command line, in this process or in one of their own."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

from ctde_kit.recipes.commands.application import compose
from ctde_kit.recipes.commands.main import main
from ctde_kit.recipes.commands.train import recipe_config

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def command(recipe: str, *arguments: str) -> list[str]:
    """What starts a recipe."""
    return [sys.executable, "-m", "ctde_kit.recipes.commands.main", recipe, *arguments]


def composed(recipe: str, *overrides: str) -> Any:
    """The checked configuration of a command line."""
    return recipe_config(compose(recipe, list(overrides)))


def call(cwd: Path, recipe: str, *arguments: str) -> subprocess.CompletedProcess:
    """A process of its own, to its end."""
    return subprocess.run(
        command(recipe, *arguments), cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False
    )


def call_here(cwd: Path, recipe: str, *arguments: str) -> subprocess.CompletedProcess:
    """The same in this process, which has imported everything already; an exception stays one."""
    stdout, stderr, status = io.StringIO(), io.StringIO(), 0
    with (
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
        mock.patch.object(sys, "argv", ["ctde", recipe, *arguments]),
        mock.patch.dict(os.environ),
    ):
        try:
            main()
        except SystemExit as stop:
            status = int(stop.code or 0)
    return subprocess.CompletedProcess(["ctde", recipe, *arguments], status, stdout.getvalue(), stderr.getvalue())


def kill_and_resume(cwd: Path, recipe: str, *arguments: str, after: str) -> None:
    """Two runs: ``whole``, and ``killed``, which is killed once a checkpoint like ``after`` is there, and resumed.

    Only the one that is killed needs a process of its own.
    """
    whole = call_here(cwd, recipe, *arguments, "hydra.run.dir=whole")
    assert whole.returncode == 0, whole.stderr
    killed = subprocess.Popen(
        command(recipe, *arguments, "hydra.run.dir=killed"), cwd=cwd, env=ENVIRONMENT, stdout=subprocess.DEVNULL
    )
    checkpoints = cwd / "killed" / "checkpoints"
    deadline = time.monotonic() + 120
    while not list(checkpoints.glob(after)) and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (cwd / "killed" / "summary.json").exists(), "the run ended before it was killed"
    resumed = call_here(cwd, recipe, "resume=killed")
    assert resumed.returncode == 0, resumed.stderr


def assert_one_line(result: subprocess.CompletedProcess, message: str, *, program: str) -> None:
    """A mistake: exit code 2, and one line of ``program`` with ``message`` in it."""
    assert result.returncode == 2, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith(f"{program}: error: ")
    assert message in lines[0]
