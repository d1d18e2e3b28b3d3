"""From which size on it pays to share the agents of every batch among learners.

Run ``python -m tests.programs.benchmarks.shared_agents``.

Two processes of one thread each make MADDPG's gradient steps of four agents, by width and depth of the networks: one
process alone, eager and compiled, for all agents and for two of them, and both together, each for two. Then whole runs:
seconds per iteration of each layout. Results go to docs/results/shared_agents.json and into docs/scale_out.md.
"""

from __future__ import annotations

import csv
import statistics
import subprocess
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import Tensor

from ctde_kit.distributed import AverageGradients
from ctde_kit.shards import sharing
from tests.programs.benchmarks.scale_out_figures import publish
from tests.programs.benchmarks.two_learners import eager_step, figures_of_first, median_milliseconds
from tests.recipes.command_line import command

SHAPES = ([64, 64], [256, 256], [512, 512], [256, 256, 256, 256])
BATCH, ROUNDS, STEPS = 256, 7, 5
RUN = [
    "task=vmas/navigation",
    "task.n_envs=60",
    "task.params.n_agents=4",
    "frames_per_batch=6000",
    "total_frames=24000",
    "updates_per_frame=0.02",
    "evaluation.every_frames=24000",
    "evaluation.episodes=20",
    "seed=0",
]
TOGETHER = ["compile=off", "distributed=ray", "distributed.learners=2", "threads=2"]
LAYOUTS = {
    "one process, compiled": ["compile=on", "threads=1"],
    "one process, eager": ["compile=off", "threads=1"],
    "by agent, each collects": [*TOGETHER, "distributed.by=agent"],
    "by agent, the first collects": [*TOGETHER, "distributed.by=agent", "distributed.collect=first"],
    "by batch": TOGETHER,
}


class Alone:
    """A learner that waits for nobody."""

    count = 1

    def sum(self, values: Tensor) -> Tensor:
        return values

    def max(self, values: Tensor) -> Tensor:
        return values


def learner(rank: int, address: str, num_cells: list[int], found: Any) -> None:
    """Median milliseconds of a step: of one process, and of two that share the agents."""
    step, minibatch = eager_step(num_cells, n_agents=4, batch_size=BATCH, share_params=False)
    average = AverageGradients(address, rank=rank, count=2, timeout=600)
    own = {"agents": slice(2 * rank, 2 * rank + 2)}

    def one(compile: bool) -> None:
        step.average, step.compile = None, compile
        if rank == 0:
            step(minibatch.clone())

    def half() -> None:
        step.average, step.compile = None, False
        if rank == 0:
            with sharing(Alone(), own):
                step(minibatch.clone())

    def shared() -> None:
        step.average, step.compile = average, False
        with sharing(average, own):
            step(minibatch.clone())

    cases = {"eager": lambda: one(False), "compiled": lambda: one(True), "half": half, "shared": shared}
    found[rank] = median_milliseconds(average, cases, rounds=ROUNDS, steps=STEPS, warm_up=2)


def measured_steps() -> dict[str, dict[str, float]]:
    """Milliseconds of steps by shape of the networks."""
    results: dict[str, dict[str, float]] = {}
    for shape in SHAPES:
        name = f"{shape[0]}x{len(shape)}"
        results[name] = figures_of_first(learner, shape)
        print(name, results[name], flush=True)
    return results


def measured_iterations() -> dict[str, float]:
    """The median of the seconds that the iterations after the first take, by layout."""
    results = {}
    for name, options in LAYOUTS.items():
        with tempfile.TemporaryDirectory() as directory:
            arguments = [*RUN, *options, f"hydra.run.dir={directory}/run"]
            subprocess.run(command("maddpg", *arguments), check=True, stdout=subprocess.DEVNULL)
            with (Path(directory) / "run" / "metrics.csv").open() as rows:
                ends = [float(row["seconds"]) for row in csv.DictReader(rows)]
        results[name] = statistics.median(after - before for before, after in pairwise(ends))
        print(name, results[name], flush=True)
    return results


def main() -> None:
    """Measure, and write results and page."""
    steps, iterations = measured_steps(), measured_iterations()
    measured = {
        "milliseconds_per_step": steps,
        "seconds_per_iteration": iterations,
        "command": " ".join(["ctde-maddpg", *RUN]),
    }
    columns = {"eager": "one process, eager", "half": "half of its agents", "shared": "two share them"}
    columns["compiled"] = "one process, compiled"
    lines = ["".join(["| networks |", *(f" {title}, ms |" for title in columns.values())]), "|---|---|---|---|---|"]
    lines += [f"| {name} | {' | '.join(f'{row[case]:.1f}' for case in columns)} |" for name, row in steps.items()]
    lines += ["", "| layout | seconds per iteration |", "|---|---|"]
    lines += [f"| {name} | {seconds:.1f} |" for name, seconds in iterations.items()]
    publish("shared_agents", measured, "\n".join(lines))


if __name__ == "__main__":
    main()
