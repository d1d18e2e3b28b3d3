"""BenchMARL on the tasks of ``ctde benchmark benchmark=vmas_small``, for the same frames, to stand in one report.

Run ``python -m tests.programs.benchmarks.benchmarl_suite OUTPUT [--minutes N] [--jobs N] [--tasks ...]
[--algorithms ...]``, and then ``ctde report OUR_DIRECTORY OUTPUT/reported output=r``. With ``--keep``, docs/results has
each run as it ends, and what it has already is not run again, on any machine; ``python -m
tests.programs.learning.vmas_small`` then shows them in docs/studies/vmas_small.md.

Each algorithm has two candidate settings: those that BenchMARL publishes as tuned for VMAS, and those that learn faster
in few frames. A run of a tuning seed with each decides per task, by the mean return of the last evaluation, which of
the two the reported seeds run with; ``OUTPUT/chosen.json`` has both figures. What has ended is not run again; when the
minutes are over, no further run is started.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from threading import Lock
from typing import Any, TypeVar

from ctde_kit.training.reporting import read_marl_eval
from tests.programs.benchmarks.benchmarl_runs import benchmarl
from tests.programs.learning.kept_runs import KeptRuns

FRAMES, EPISODES, EVERY = 300_000, 200, 30_000
TUNING_SEED, SEEDS = 0, (100, 101, 102)
TASKS = ("navigation", "balance", "sampling")
ALGORITHMS = ("mappo", "qmix", "maddpg")
T = TypeVar("T")

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


@dataclass(frozen=True)
class Run:
    """One training of an algorithm on a task, with a setting and a seed."""

    algorithm: str
    task: str
    setting: str
    seed: int

    @property
    def path(self) -> Path:
        """Where its evaluations go, under the output."""
        kind = "reported" if self.seed in SEEDS else f"tuning/{self.setting}"
        return Path(kind) / self.task / self.algorithm / f"{self.seed}.json"


class Suite:
    """The runs of one output directory.

    Args:
        output: the directory.
        deadline: on the monotonic clock; after it no run is started.
        jobs: how many runs there are at a time.
        kept: where runs are kept beyond the directory, if anywhere.
    """

    def __init__(self, output: Path, deadline: float, jobs: int, kept: KeptRuns | None) -> None:
        self.output, self.deadline, self.jobs, self.kept = output, deadline, jobs, kept
        self._lock = Lock()
        if kept is not None:
            kept.restore(output)

    def run(self, tasks: Iterable[str], algorithms: Iterable[str]) -> None:
        """What has not ended: first all runs of the tuning seed, then the reported seeds, one after the other."""
        pairs = [(task, algorithm) for task in tasks for algorithm in algorithms]
        tuned = [(setting, task, algorithm) for setting in SETTINGS for task, algorithm in pairs]
        self._each(lambda of: self.tune(*of), tuned)
        self._each(lambda of: self.report(*of), [(seed, *pair) for seed in SEEDS for pair in pairs])

    def tune(self, setting: str, task: str, algorithm: str) -> None:
        """Note how high the tuning seed ends with a setting."""
        if setting in self._told(task, algorithm).get("returns", {}):
            return
        reached = self.train(Run(algorithm, task, setting, TUNING_SEED))
        if reached is not None:
            self._note(task, algorithm, setting, reached)

    def report(self, seed: int, task: str, algorithm: str) -> None:
        """A seed with the setting that ended higher; none before both have ended."""
        chosen = self._told(task, algorithm).get("chosen")
        if chosen is not None:
            self.train(Run(algorithm, task, chosen, seed))

    def train(self, run: Run) -> float | None:
        """The mean return of the last greedy evaluation; ``None`` if the run had to be started, and it is too late."""
        path = self.output / run.path
        if not path.exists():
            if time.monotonic() > self.deadline:
                return None
            options: dict[str, Any] = dict(SETTINGS[run.setting][run.algorithm])
            frames_per_batch = options.get("frames_per_batch", 6000)
            path.parent.mkdir(parents=True, exist_ok=True)
            evaluated = {"evaluate_every": max(EVERY, frames_per_batch), "episodes": EPISODES, "output": path}
            options |= {"iterations": FRAMES // frames_per_batch, "seed": run.seed, **evaluated}
            _, seconds = benchmarl(run.algorithm, run.task, **options)
            print(f"{path}: {seconds:.0f} s", flush=True)
            self._keep()
        (curve,) = read_marl_eval(path)
        return fmean(curve.episodes[-1])

    def _each(self, function: Callable[[T], None], items: list[T]) -> None:
        with ThreadPoolExecutor(self.jobs) as pool:
            for _ in pool.map(function, items):
                pass

    def _told(self, task: str, algorithm: str) -> dict[str, Any]:
        with self._lock:
            return self._all().get(task, {}).get(algorithm, {})

    def _all(self) -> dict[str, Any]:
        path = self.output / "chosen.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def _note(self, task: str, algorithm: str, setting: str, reached: float) -> None:
        with self._lock:
            told = self._all()
            of = told.setdefault(task, {}).setdefault(algorithm, {"returns": {}})
            of["returns"][setting] = reached
            if set(of["returns"]) == set(SETTINGS):
                chosen = max(SETTINGS, key=lambda name: of["returns"][name])
                of |= {"chosen": chosen, "options": SETTINGS[chosen][algorithm]}
            (self.output / "chosen.json").write_text(json.dumps(told, indent=1) + "\n")
        self._keep()

    def _keep(self) -> None:
        if self.kept is not None:
            with self._lock:
                self.kept.keep(self.output)


def main() -> None:
    """Run what has not ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, each on one thread")
    parser.add_argument("--keep", action="store_true", help="in docs/results, too")
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--algorithms", nargs="+", default=ALGORITHMS, choices=(*ALGORITHMS, "masac"))
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes
    suite = Suite(options.output, deadline, options.jobs, KeptRuns() if options.keep else None)
    suite.run(options.tasks, options.algorithms)


if __name__ == "__main__":
    main()
