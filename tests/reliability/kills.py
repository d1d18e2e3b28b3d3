"""Kills: at random moments, and at every step of writing a file; each run goes on to the same end."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ctde_kit import files
from tests.reliability.cases import CASES, differences, fork_command, go_on, run_command, wait_for

# What a run calls while it writes: each call is a step, before it and after it.
STEPS: list[tuple[Any, str]] = [
    (files._Sealing, "write"),
    (files._Sealing, "seal"),
    (os, "fsync"),
    (os, "replace"),
    (Path, "unlink"),
]


def count_steps(log: Path, die_at: int | None = None) -> Callable[[], None]:
    """Prepares a process: it writes the names of its steps to ``log``, and is killed at step ``die_at``."""
    taken = 0

    def step(name: str) -> None:
        nonlocal taken
        if taken == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        taken += 1
        if die_at is None:
            with open(log, "a") as file:
                file.write(f"{name}\n")

    def watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            step(f"before {name}")
            result = function(*args, **kwargs)
            step(f"after {name}")
            return result

        return call

    def prepare() -> None:
        for owner, name in STEPS:
            setattr(owner, name, watched(name, getattr(owner, name)))

    return prepare


def whole_run(cwd: Path, case: str) -> tuple[float, int]:
    """The run ``whole``, to which others are compared; returns its seconds and its steps."""
    recipe, arguments = CASES[case]
    log = cwd / "steps"
    ended = run_command(cwd, recipe, [*arguments, "hydra.run.dir=whole"], count_steps(log))
    assert ended.code == 0, f"{case}: {ended.stderr}"
    return ended.seconds, len(log.read_text().splitlines())


def kill_at_random(cwd: Path, case: str, seconds: float, draw: random.Random, run: str) -> list[str]:
    """Kill a run at a moment by chance and go on; returns what is not as in the whole run."""
    recipe, arguments = CASES[case]
    process = fork_command(cwd, recipe, [*arguments, f"hydra.run.dir={run}"])
    wait_for(process, cwd, kill_after=draw.uniform(0.1, 0.95) * seconds)
    return _compared(cwd, case, run)


def kill_at_step(cwd: Path, case: str, step: int, run: str) -> list[str]:
    """Kill a run at a step of writing and go on; returns what is not as in the whole run."""
    recipe, arguments = CASES[case]
    before = count_steps(cwd / "steps", die_at=step)
    ended = run_command(cwd, recipe, [*arguments, f"hydra.run.dir={run}"], before)
    if ended.code != -signal.SIGKILL:
        return [f"was not killed at step {step}"]
    return _compared(cwd, case, run)


def _compared(cwd: Path, case: str, run: str) -> list[str]:
    if (cwd / run / "summary.json").exists():
        return []  # it had ended before
    ended = go_on(cwd, *CASES[case], run)
    if ended.code != 0:
        return [f"did not go on: {ended.stderr}"]
    return differences(cwd / "whole", cwd / run)
