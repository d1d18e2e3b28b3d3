"""Thousands of short iterations: memory, file descriptors and threads stay as they are, and SIGTERM leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from ctde_kit.recipes.commands.main import main
from tests.recipes.command_line import ENVIRONMENT
from tests.reliability.cases import Ended, run_command

if TYPE_CHECKING:
    from ctde_kit.training import Iteration, Parts

FRAMES = 4
# Rollout, update, and all hundred iterations an evaluation and a checkpoint.
SHORT = [
    "task.n_envs=2",
    f"frames_per_batch={FRAMES}",
    "evaluation.episodes=2",
    f"evaluation.every_frames={100 * FRAMES}",
    f"checkpoint.every_frames={100 * FRAMES}",
    "device=cpu",
    "actor.num_cells=[8]",
    "callbacks=[tests.reliability.endurance:sample]",
]
MAPPO = [*SHORT, "minibatch_frames=4", "epochs=1", "critic.network.num_cells=[8]"]
QMIX = [*SHORT, "updates_per_frame=0.25", "replay.capacity=60", "replay.batch_size=8"]
DISK = ["replay=episodes", "replay.stored_on=disk", "replay.directory=replays"]
WORKERS = ["task.n_workers=2"]
CASES: dict[str, tuple[str, list[str]]] = {
    "MAPPO, eager": ("mappo", ["task=vmas/navigation", "task.max_steps=5", *MAPPO, "compile=off"]),
    "MAPPO, compiled": ("mappo", ["task=vmas/navigation", "task.max_steps=5", *MAPPO, "compile=on"]),
    "QMIX, episodes on disk": ("qmix", ["task=matrix/two_step", *QMIX, *DISK, "compile=off"]),
    "MAPPO, PettingZoo workers": ("mappo", ["task=pettingzoo/simple_spread", "task.max_steps=5", *MAPPO, *WORKERS]),
    "MAPPO, LBF workers": ("mappo", ["task=lbf/foraging_8x8_2p_2f_coop", "task.max_steps=5", *MAPPO, *WORKERS]),
}
# A game of numbers, in which hundreds of iterations take seconds. What the first evaluation and checkpoint need
# is there before the half.
OFTEN = [f"evaluation.every_frames={20 * FRAMES}", f"checkpoint.every_frames={20 * FRAMES}"]
QUICK = (
    "mappo",
    ["task=matrix/climbing", *(part for part in MAPPO if "every_frames" not in part), *OFTEN, "compile=off"],
)
# How often a run is looked at, and by how much what it uses may grow from its half to its end: memory by noise of the
# allocator, in kB, whatever the number of iterations; the rest not at all.
LOOKS = 80
ALLOWED = {"memory": 2048, "memory of workers": 2048, "descriptors": 0, "threads": 0, "processes": 0}

# Where a run's callback notes what it sees, and after how many iterations it ends the run.
LOG, ITERATIONS = "ENDURANCE_LOG", "ENDURANCE_ITERATIONS"


def sample(parts: Parts, iteration: Iteration, row: dict[str, float]) -> None:
    """The run's callback: notes what its processes use; after the last iteration all of them get SIGTERM."""
    iterations, number = int(os.environ[ITERATIONS]), iteration.frames // FRAMES
    if number % (iterations // LOOKS) == 0:
        with open(os.environ[LOG], "a") as file:
            file.write(json.dumps(usage()) + "\n")
    if number == iterations:
        os.killpg(0, signal.SIGTERM)


def usage() -> dict[str, int]:
    """What this process and its children use; memory in kB."""
    children = [pid for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()]
    processes = ["self", *children]
    return {
        "memory": _status("self", "VmRSS"),
        "memory of workers": sum(_status(pid, "VmRSS") for pid in children),
        "descriptors": sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in processes),
        "threads": sum(_status(pid, "Threads") for pid in processes),
        "processes": len(processes),
    }


def _status(process: str, name: str) -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


def endure(cwd: Path, case: str, iterations: int) -> dict[str, Any]:
    """Run a case for so many iterations and end it by SIGTERM; what it used at its half and its end, what is wrong."""
    recipe, arguments = CASES[case]
    environment = _prepared(cwd, iterations)
    command = [sys.executable, "-m", "tests.reliability.endurance", recipe, *_whole(arguments, iterations)]
    begun = time.monotonic()
    process = subprocess.Popen(
        command, cwd=cwd, env={**ENVIRONMENT, **environment}, stderr=subprocess.PIPE, text=True, process_group=0
    )
    stderr = process.communicate()[1]
    return _judged(cwd, Ended(process.returncode, stderr, time.monotonic() - begun, process.pid), iterations)


def endure_a_little(cwd: Path, iterations: int) -> dict[str, Any]:
    """The same of a small game in a forked process, which has imported everything already."""
    recipe, arguments = QUICK
    environment = _prepared(cwd, iterations)
    ended = run_command(cwd, recipe, _whole(arguments, iterations), lambda: os.environ.update(environment))
    return _judged(cwd, ended, iterations)


def _prepared(cwd: Path, iterations: int) -> dict[str, str]:
    (cwd / "temporary").mkdir(parents=True)
    places = {LOG: str(cwd / "usage"), "TMPDIR": str(cwd / "temporary"), "PYTHONPATH": str(Path(__file__).parents[2])}
    return {**places, ITERATIONS: str(iterations)}


def _whole(arguments: list[str], iterations: int) -> list[str]:
    return [*arguments, f"total_frames={2 * iterations * FRAMES}", "hydra.run.dir=run"]


def _judged(cwd: Path, ended: Ended, iterations: int) -> dict[str, Any]:
    log = cwd / "usage"
    looks = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    wrong = [] if ended.code == 128 + signal.SIGTERM else [f"exit code {ended.code}: {ended.stderr}"]
    if len(looks) != LOOKS:
        return {"iterations": iterations, "wrong": [*wrong, f"{len(looks)} looks, expected {LOOKS}"]}
    half, end = _summary(looks[LOOKS // 2 : LOOKS * 5 // 8]), _summary(looks[LOOKS * 7 // 8 :])
    wrong += [
        f"{name} grew from {half[name]} to {end[name]}"
        for name, allowed in ALLOWED.items()
        if end[name] - half[name] > allowed
    ]
    left = [path for place in ("temporary", "replays") for path in (cwd / place).rglob("*")]
    left = [path for path in left if not _is_torchs(path.relative_to(cwd))]
    wrong += [f"SIGTERM left {path.relative_to(cwd)}" for path in left]
    wrong += ["SIGTERM left processes"] if _stays(ended.process) else []
    return {"iterations": iterations, "seconds": round(ended.seconds), "half": half, "end": end, "wrong": wrong}


def _is_torchs(path: Path) -> bool:
    """Whether ``temporary/...`` is torch's own, for all its programs: the directory that it makes when it is imported.

    There it keeps precompiled headers, whatever ``TORCHINDUCTOR_CACHE_DIR`` says, and nothing else while that is set.
    """
    place, *inside = path.parts[1:]
    return place.startswith("torchinductor_") and inside[:1] in ([], ["precompiled_headers"])


def _summary(looks: Sequence[dict[str, int]]) -> dict[str, int]:
    return {name: round(median(look[name] for look in looks)) for name in looks[0]}


def _stays(group: int, seconds: float = 10.0) -> bool:
    """Whether a process of a group is still there after so many seconds; those that nobody waited for are none."""
    deadline = time.monotonic() + seconds
    while (there := _is_there(group)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return there


def _is_there(group: int) -> bool:
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue  # it has ended meanwhile
        if int(its_group) == group and state != "Z":
            return True
    return False


if __name__ == "__main__":
    main()
