"""Small runs of many kinds, and how one is run in a process of its own that is forked from this one."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from ctde_kit.training import latest_checkpoint, runner
from tests.recipes.command_line import call_here

COMMON = [
    "task.n_envs=6",
    "task.max_steps=7",
    "frames_per_batch=60",
    "total_frames=300",
    "evaluation.episodes=2",
    "evaluation.every_frames=180",
    "checkpoint.every_frames=60",
    "device=cpu",
    "actor.num_cells=[8]",
]
VMAS = ["task=vmas/navigation", "task.params.n_agents=2", *COMMON]
ON_POLICY = ["minibatch_frames=20", "epochs=2"]
REPLAY = ["task.continuous_actions=false", "updates_per_frame=0.05", "replay.capacity=300", "replay.batch_size=8"]
GRU = ["network@actor=gru", "actor.hidden_size=6"]
DISK = ["replay.stored_on=disk", "replay.directory=replays"]
CASES: dict[str, tuple[str, list[str]]] = {
    "MAPPO, MLP": ("mappo", [*VMAS, *ON_POLICY, "compile=off"]),
    "MAPPO, GRU": ("mappo", [*VMAS, *ON_POLICY, *GRU, "sequence_length=5", "compile=off"]),
    "QMIX, transitions": ("qmix", [*VMAS, *REPLAY, "compile=off"]),
    "QMIX, sequences": ("qmix", [*VMAS, *REPLAY, *GRU, "replay=sequences", "replay.form.length=4", "compile=off"]),
    "QMIX, episodes on disk": ("qmix", [*VMAS, *REPLAY, "replay=episodes", *DISK, "compile=off"]),
    "MADDPG": ("maddpg", [*VMAS, *REPLAY[1:], "compile=off"]),
    "PQN": ("pqn", [*VMAS, *ON_POLICY, REPLAY[0], "sequence_length=5", "compile=off"]),
    "LBF, workers": ("mappo", ["task=lbf/foraging_8x8_2p_2f_coop", *COMMON, *ON_POLICY, "task.n_workers=2"]),
    "PettingZoo, workers": ("mappo", ["task=pettingzoo/simple_spread", *COMMON, *ON_POLICY, "task.n_workers=2"]),
    "MAPPO, compiled": ("mappo", [*VMAS, *ON_POLICY, "compile=on"]),
    "QMIX, compiled": ("qmix", [*VMAS, *REPLAY, "compile=on"]),
}


@dataclass(frozen=True)
class Ended:
    """How a child process ended.

    Args:
        code: its exit code, or minus the number of the signal that killed it.
        stderr: what it said.
        seconds: how long it took.
        process: its id, which is that of its group, too.
    """

    code: int
    stderr: str
    seconds: float
    process: int = 0


def fork_command(
    cwd: Path, recipe: str, arguments: list[str], before: Callable[[], Any] = lambda: None, plots: bool = False
) -> int:
    """Fork a process that calls a command, after ``before``; returns its id.

    Forking spares the seconds that importing takes, and a run without ``plots`` those of drawing.
    """
    said = cwd / "stderr"
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        random.seed(0)  # Python draws a new seed after a fork
        os.setpgid(0, 0)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        said = cwd / f"stderr_{os.getpid()}"
        with contextlib.nullcontext() if plots else mock.patch.object(runner, "plot_run"):
            before()
            result = call_here(cwd, recipe, *arguments)
        code = result.returncode
        said.write_text(result.stderr)
    except BaseException as error:
        said.write_text(f"Traceback of a {type(error).__name__}: {error}")
    finally:
        os._exit(code)


def wait_for(process: int, cwd: Path, *, kill_after: float | None = None) -> Ended:
    """Wait for the end of a child, or kill it after so many seconds."""
    begun, found, status = time.monotonic(), 0, 0
    while not found:
        found, status = os.waitpid(process, os.WNOHANG)
        seconds = time.monotonic() - begun
        if not found and kill_after is not None and seconds > kill_after:
            os.kill(process, signal.SIGKILL)
            found, status = os.waitpid(process, 0)
        if not found:
            time.sleep(0.005)
    said = cwd / f"stderr_{process}"
    stderr = said.read_text() if said.exists() else ""
    said.unlink(missing_ok=True)
    return Ended(os.waitstatus_to_exitcode(status), stderr, time.monotonic() - begun, process)


def run_command(
    cwd: Path, recipe: str, arguments: list[str], before: Callable[[], Any] = lambda: None, plots: bool = False
) -> Ended:
    """Run a command in a forked process to its end."""
    return wait_for(fork_command(cwd, recipe, arguments, before, plots), cwd)


def go_on(cwd: Path, recipe: str, arguments: list[str], run: str) -> Ended:
    """What a user would do after a run was stopped: resume it, or start it again where there is no checkpoint yet."""
    if list((cwd / run / "checkpoints").glob("frames_*.pt")):
        return run_command(cwd, recipe, [f"resume={run}"])
    return run_command(cwd, recipe, [*arguments, f"hydra.run.dir={run}"])


def differences(first: Path, second: Path) -> list[str]:
    """What two runs ended with that is not the same, bit for bit: all parts, random states, rows and figures."""
    states = [torch.load(latest_checkpoint(path / "checkpoints"), weights_only=True) for path in (first, second)]
    found = [name for name in ("frames", "parts", "random") if not same(states[0][name], states[1][name])]
    tables = [rows(path) for path in (first, second)]
    found += ["metrics.csv"] if tables[0] != tables[1] else []
    figures = [json.loads((path / "summary.json").read_text()) for path in (first, second)]
    names = [name for name in figures[0] if name.startswith("eval/")]
    return found + [name for name in names if figures[0][name] != figures[1][name]]


def rows(run: Path) -> list[dict[str, str]]:
    """The rows of ``metrics.csv`` without their seconds, as numbers."""
    with open(run / "metrics.csv", newline="") as file:
        return [
            {name: repr(float(value)) for name, value in row.items() if value and name != "seconds"}
            for row in csv.DictReader(file)
        ]


def same(first: Any, second: Any) -> bool:
    """Whether two states hold the same, bit for bit."""
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and first.shape == second.shape and bits(first) == bits(second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(value, second[key]) for key, value in first.items())
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return repr(first) == repr(second)


def bits(value: torch.Tensor) -> bytes:
    """The bytes of a tensor."""
    return value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""
