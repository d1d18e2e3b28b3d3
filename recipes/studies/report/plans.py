"""Reads what a benchmark was to run, and the bounds of its tasks, from the ``benchmark.yaml`` in its output."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ctde_kit.recipes.configs.benchmark_options import FILE_KEYS, BenchmarkOptions
from ctde_kit.recipes.configs.data import read_data
from ctde_kit.recipes.studies.benchmark.plan import PLAN_FILE, Plan, Status


@dataclass(frozen=True)
class PlanProgress:
    """How far the runs of a benchmark are.

    Args:
        file: its ``benchmark.yaml``.
        bounds: by task, the returns that count as 0 and 1.
        ended: how many runs have ended.
        unfinished: how many have started, and not ended.
        not_started: the names of those that have not started.
    """

    file: Path
    bounds: dict[str, tuple[float, float]]
    ended: int
    unfinished: int
    not_started: list[str]


def read_plans(source: Path) -> Iterator[PlanProgress]:
    """The benchmarks whose output is ``source`` or lies below it."""
    for file in sorted(source.rglob(PLAN_FILE)):
        content = read_data(file)
        if not {"recipes", "tasks", "seeds"} <= content.keys() <= {*FILE_KEYS}:
            continue  # A file of this name that no benchmark wrote.
        options = BenchmarkOptions()
        for name, value in content.items():
            options.update(name, value, str(file))
        runs = list(Plan(options.recipes, options.tasks, options.seeds, options.options, file.parent).runs())
        ended = sum(run.status is Status.ENDED for run in runs)
        not_started = [run.name for run in runs if not (run.directory / "config.yaml").exists()]
        yield PlanProgress(file, options.bounds, ended, len(runs) - ended - len(not_started), not_started)
