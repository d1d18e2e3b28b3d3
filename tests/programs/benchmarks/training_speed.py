"""Time whole iterations, compiled and plain, beside BenchMARL's and TorchRL's.

Run ``python -m tests.programs.benchmarks.training_speed``.

``BENCHMARL_PYTHON`` names a python that has BenchMARL 1.5.2 (it pins an older torchrl). 60 envs x 100 steps an
iteration; MAPPO and PQN: 10 epochs x 15 minibatches of 400 frames, QMIX and MADDPG: 100 updates of 256 frames; shared
networks, Adam (PQN: RAdam, and no other library has it). The programs run in turn, each in its own process, two
threads; a figure is the median of all iterations but each process's first two. Results go to
docs/results/training_speed.json.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.programs.benchmarks.benchmarl_runs import benchmarl
from tests.programs.benchmarks.in_turn import print_iterations

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "docs" / "results" / "training_speed.json"
FRAMES, ITERATIONS, ROUNDS, WARMUP = 6_000, 7, 2, 2
CASES: dict[str, tuple[list[int], dict[str, Any]]] = {
    "balance": ([256, 256], {"n_agents": 4, "package_mass": 5, "random_package_pos_on_line": True}),
    "navigation": ([256, 256], {"n_agents": 3, "shared_rew": False, "collisions": True}),
    "simple_spread": ([64, 64], {}),
}


def ours(algorithm: str, task: str, cells: list[int], compile: bool, iterations: int) -> None:
    """Print the seconds of each iteration."""
    import torch

    from ctde_kit.recipes import (
        GaussianExploration,
        LoggerConfig,
        MADDPGConfig,
        MAPPOConfig,
        MLPNetwork,
        NoMixer,
        PQNConfig,
        QMIXConfig,
        QMixerConfig,
        TDLambdaReturns,
        ValueCriticConfig,
        VDNMixerConfig,
        VmasTask,
    )

    torch.set_num_threads(2)
    from_values = algorithm in ("qmix", "pqn")
    options: dict[str, Any] = {
        "task": VmasTask(name=f"vmas/{task}", params=CASES[task][1], continuous_actions=not from_values),
        "actor": MLPNetwork(num_cells=cells, layer_norm=algorithm == "pqn"),
        "logger": LoggerConfig(),
        "total_frames": FRAMES * iterations,
        "device": "cpu",
        "compile": "on" if compile else "off",
    }
    critic = ValueCriticConfig(network=MLPNetwork(num_cells=cells))
    if algorithm == "qmix":
        parts = QMIXConfig(mixer=QMixerConfig(), **_from_replay(), **options).build()
    elif algorithm == "pqn":
        size: dict[str, Any] = {"frames_per_batch": FRAMES, "minibatch_frames": 400, "epochs": 10}
        parts = PQNConfig(mixer=VDNMixerConfig(), returns=TDLambdaReturns(0.8), **size, **options).build()
    elif algorithm == "maddpg":
        own: dict[str, Any] = {"critic": critic, "mixer": NoMixer(), "exploration": GaussianExploration()}
        parts = MADDPGConfig(**own, **_from_replay(), **options).build()
    else:
        parts = MAPPOConfig(critic=critic, **options).build()
    print_iterations(parts)


def _from_replay() -> dict[str, Any]:
    from ctde_kit.recipes import NStepReturns, PolyakTarget, ReplayConfig, TransitionForm

    return {
        "replay": ReplayConfig(form=TransitionForm(), batch_size=256),
        "returns": NStepReturns(1),
        "target": PolyakTarget(),
        "frames_per_batch": FRAMES,
        "updates_per_frame": 100 / FRAMES,
    }


def seconds_of_iterations(command: list[str]) -> list[float]:
    """What ``command``, run with two threads, prints as the seconds of its iterations."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    found = [float(x) for x in re.findall(r"^iteration (\S+)$", run.stdout, re.MULTILINE)]
    if not found:
        raise RuntimeError(run.stderr[-2000:])
    return found


def seconds_of_jaxmarl(program: str, sizes: list[int]) -> list[float]:
    """The mean seconds of an update of JaxMARL's IPPO; ``sizes`` are those of ``jaxmarl_worker``."""
    worker = Path(__file__).with_name("jaxmarl_worker.py")
    command = [os.environ["JAXMARL_PYTHON"], str(worker), os.environ["JAXMARL_BASELINES"], program, *map(str, sizes)]
    return seconds_of_iterations(command)


def _seconds_of_benchmarl(algorithm: str, task: str, cells: list[int]) -> list[float]:
    sizes: dict[str, Any] = {"num_cells": json.dumps(cells), "updates": 100, "batch_size": 256}
    rows, _ = benchmarl(algorithm, task, iterations=ITERATIONS, threads=2, **sizes)
    return [after["seconds"] - before["seconds"] for before, after in pairwise(rows)]


def compare(algorithm: str, task: str) -> dict[str, Any]:
    """Median frames per second of the four programs, over rounds in turn."""
    cells, arguments = CASES[task]
    me = [sys.executable, "-m", "tests.programs.benchmarks.training_speed", "--ours", algorithm, task, str(cells)]
    torchrl = [sys.executable, "-m", "tests.programs.benchmarks.torchrl_plain"]
    programs = {
        "compiled": [*me, "1", str(ITERATIONS)],
        "plain": [*me, "0", str(ITERATIONS)],
        "torchrl": [*torchrl, algorithm, task, str(cells), json.dumps(arguments), str(ITERATIONS)],
    }
    measured = {program: partial(seconds_of_iterations, command) for program, command in programs.items()}
    measured["benchmarl"] = partial(_seconds_of_benchmarl, algorithm, task, cells)
    if algorithm == "pqn":
        measured = {program: measured[program] for program in ("compiled", "plain")}
    times: dict[str, list[float]] = {program: [] for program in measured}
    for _ in range(ROUNDS):
        for program, seconds in measured.items():
            times[program] += seconds()[WARMUP:]
    speed = {program: round(FRAMES / statistics.median(found)) for program, found in times.items()}
    others = [program for program in measured if program != "compiled"]
    return {
        "algorithm": algorithm,
        "task": task,
        "cells": cells,
        "arguments": arguments,
        "frames_per_second": speed,
        **{f"ratio_to_{other}": round(speed["compiled"] / speed[other], 1) for other in others},
    }


def main() -> None:
    """Run one program's iterations (``--ours``), or compare."""
    if sys.argv[1:2] == ["--ours"]:
        algorithm, task, cells, compile, iterations = sys.argv[2:]
        ours(algorithm, task, json.loads(cells), compile == "1", int(iterations))
        return
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    from_replay = [
        f"{algorithm}:{task}" for algorithm in ("qmix", "maddpg") for task in ("navigation", "simple_spread")
    ]
    for case in sys.argv[1:] or [*(f"mappo:{task}" for task in CASES), *from_replay, "pqn:simple_spread"]:
        algorithm, task = case.split(":")
        row = compare(algorithm, task)
        print(row, flush=True)
        rows = [*(old for old in rows if (old["algorithm"], old["task"]) != (algorithm, task)), row]
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
