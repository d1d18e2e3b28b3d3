"""BenchMARL on the tasks of ``ctde benchmark benchmark=vmas_small``, for the same frames, to stand in one report.

Run ``python -m tests.programs.benchmarks.benchmarl_suite OUTPUT [--minutes N] [--tasks ...] [--algorithms ...]``, and
then ``python -m tests.programs.learning.vmas_small --benchmarl OUTPUT``, or ``ctde report OUR_DIRECTORY OUTPUT/reported
output=r``.

Each algorithm has two candidate settings: those that BenchMARL publishes as tuned for VMAS, and those that learn faster
in few frames. A run of a tuning seed with each decides per task, by the mean return of the last evaluation, which of
the two the reported seeds run with; ``OUTPUT/chosen.json`` has both figures. What has ended is not run again; when the
minutes are over, no further run is started.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from ctde_kit.training.reporting import read_marl_eval
from tests.programs.benchmarks.benchmarl_runs import benchmarl

FRAMES, EPISODES, EVERY = 300_000, 200, 30_000
TUNING_SEED, SEEDS = 0, (100, 101, 102)
TASKS = ("navigation", "balance", "sampling")
ALGORITHMS = ("mappo", "qmix", "maddpg")

OFF_POLICY = {"updates": 1000, "batch_size": 128, "gamma": 0.9}
SETTINGS: dict[str, dict[str, Mapping[str, float]]] = {
    # Of its `fine_tuned/vmas`: lr 5e-5, gamma 0.9; 600 envs and 45 epochs on policy, exploration over a million frames.
    "fine_tuned": {
        "mappo": {
            "lr": 5e-5,
            "gamma": 0.9,
            "n_envs": 600,
            "frames_per_batch": 60_000,
            "epochs": 45,
            "minibatch_frames": 4096,
        },
        **{name: {**OFF_POLICY, "lr": 5e-5, "epsilon_frames": 1_000_000} for name in ("qmix", "maddpg", "masac")},
    },
    "few_frames": {
        "mappo": {"lr": 3e-4, "gamma": 0.99, "epochs": 10, "minibatch_frames": 400},
        **{name: {**OFF_POLICY, "lr": 3e-4, "epsilon_frames": FRAMES // 2} for name in ("qmix", "maddpg", "masac")},
    },
}


def train(path: Path, setting: str, algorithm: str, task: str, seed: int) -> float:
    """The mean return of the last greedy evaluation; a run whose evaluations lie at ``path`` is not repeated."""
    if not path.exists():
        options: dict[str, Any] = dict(SETTINGS[setting][algorithm])
        frames_per_batch = options.get("frames_per_batch", 6000)
        path.parent.mkdir(parents=True, exist_ok=True)
        evaluated = {"evaluate_every": max(EVERY, frames_per_batch), "episodes": EPISODES, "output": path}
        options |= {"iterations": FRAMES // frames_per_batch, "seed": seed, **evaluated}
        _, seconds = benchmarl(algorithm, task, **options)
        print(f"{path}: {seconds:.0f} s", flush=True)
    (curve,) = read_marl_eval(path)
    return fmean(curve.episodes[-1])


def choose(output: Path, algorithm: str, task: str) -> str:
    """The setting that ends higher with the tuning seed."""
    ends = {
        setting: train(
            output / "tuning" / setting / task / algorithm / f"{TUNING_SEED}.json",
            setting,
            algorithm,
            task,
            TUNING_SEED,
        )
        for setting in SETTINGS
    }
    chosen = max(ends, key=lambda setting: ends[setting])
    path = output / "chosen.json"
    told = json.loads(path.read_text()) if path.exists() else {}
    told.setdefault(task, {})[algorithm] = {"returns": ends, "chosen": chosen, "options": SETTINGS[chosen][algorithm]}
    path.write_text(json.dumps(told, indent=1) + "\n")
    return chosen


def main() -> None:
    """Run what has not ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--algorithms", nargs="+", default=ALGORITHMS, choices=(*ALGORITHMS, "masac"))
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes
    for seed in SEEDS:
        for task in options.tasks:
            for algorithm in options.algorithms:
                if time.monotonic() > deadline:
                    return
                setting = choose(options.output, algorithm, task)
                path = options.output / "reported" / task / algorithm / f"{seed}.json"
                print(f"{path}: {train(path, setting, algorithm, task, seed):.3f}", flush=True)


if __name__ == "__main__":
    main()
