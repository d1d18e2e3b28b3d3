"""Full disks at five points of a run: one line, exit code 2, and the same command goes on once there is room."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ctde_kit.recipes.commands import running
from ctde_kit.training import RunDirectory, runner
from tests.reliability.cases import CASES, differences, go_on, run_command

CASE = "MAPPO, MLP"
# Where the disk is full, and at which call of it: in the middle of the run.
POINTS: dict[str, tuple[Any, str, int]] = {
    "configuration": (running, "_write", 1),
    "metrics": (RunDirectory, "write_row", 3),
    "checkpoint": (runner, "save_checkpoint", 2),
    "summary": (RunDirectory, "write_summary", 1),
    "plots": (runner, "plot_run", 1),
}


def full_from(owner: Any, name: str, at_call: int) -> Callable[[], None]:
    """Prepares a process whose disk is full from that call on."""

    def prepare() -> None:
        function, calls = getattr(owner, name), 0

        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == at_call:
                _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
                resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
            return function(*args, **kwargs)

        setattr(owner, name, call)

    return prepare


def full_disk_at(cwd: Path, point: str) -> list[str]:
    """What is not as it should be after the disk was full at ``point``; the run ``whole`` is in ``cwd``."""
    recipe, arguments = CASES[CASE]
    run = f"full_{point}"
    ended = run_command(cwd, recipe, [*arguments, f"hydra.run.dir={run}"], full_from(*POINTS[point]), plots=True)
    wrong = []
    lines = ended.stderr.splitlines()
    if (ended.code, len(lines)) != (2, 1) or "File too large" not in ended.stderr:
        wrong.append(f"exit code {ended.code}: {ended.stderr}")
    again = go_on(cwd, recipe, arguments, run)
    if again.code != 0:
        return [*wrong, f"did not go on: {again.stderr}"]
    return wrong + differences(cwd / "whole", cwd / run)
