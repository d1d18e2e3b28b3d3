"""The runs of a benchmark, and the status of each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from ctde_kit.errors import UserError

# Matched by file name, so that looking at a run directory does not import torch.
CHECKPOINTS = "checkpoints/frames_*.pt"
PLAN_FILE = "benchmark.yaml"


class Status(Enum):
    """How far a run has come."""

    NEW = "new"
    STOPPED = "stopped"
    ENDED = "ended"
    FAILED = "failed"


@dataclass(frozen=True)
class PlannedRun:
    """One run of a benchmark.

    Args:
        label: the run's name in tables: its recipe, or a variant of the recipe.
        recipe: the name of the recipe whose command trains.
        task: the task's name.
        seed: the run's seed.
        options: overrides on its command line, without task, seed and directory.
        output: the benchmark's directory.
    """

    label: str
    recipe: str
    task: str
    seed: int
    options: tuple[str, ...]
    output: Path

    @property
    def name(self) -> str:
        """The path of the run's directory below ``output``."""
        # A task from a file of the user's is named by file and class, since the whole path may lead out of `output`.
        task = f"{self.task.partition('/')[0]}/{self.task.rpartition('/')[2]}" if ":" in self.task else self.task
        return f"{task}/{self.label}/seed_{self.seed}"

    @property
    def directory(self) -> Path:
        return self.output / self.name

    @property
    def log(self) -> Path:
        """The file with everything that the run printed, each time that it was started."""
        return self.output / "logs" / f"{self.name.replace('/', '__')}.log"

    @property
    def failure(self) -> Path:
        """The file that says why the run failed; there is none if it did not fail."""
        return self.log.with_suffix(".failed")

    @property
    def status(self) -> Status:
        if (self.directory / "summary.json").exists():
            return Status.ENDED
        if self.failure.exists():
            return Status.FAILED
        return Status.STOPPED if any(self.directory.glob(CHECKPOINTS)) else Status.NEW

    @property
    def arguments(self) -> list[str]:
        """The arguments of ``ctde`` that start the run, or resume it from its last checkpoint."""
        if self.status is Status.STOPPED or any(self.directory.glob(CHECKPOINTS)):
            # Who names code of their own on the benchmark's command line trusts it.
            own_code = ":" in self.task or any(option.startswith("callbacks=") for option in self.options)
            return [self.recipe, f"resume={self.directory}", *(["trust=true"] if own_code else [])]
        chosen = [f"task={self.task}", f"seed={self.seed}", f"hydra.run.dir={self.directory}"]
        return [self.recipe, *chosen, *self.options]

    def frames(self) -> int:
        """The frames collected so far, read from ``metrics.csv``."""
        try:
            *_, last = (self.directory / "metrics.csv").read_text().splitlines()
            return int(float(last.partition(",")[0]))
        except (OSError, ValueError):
            return 0

    def result(self) -> float | None:
        """The final policy's mean return (the first group's where groups compete), or None before the run has ended."""
        try:
            summary = json.loads((self.directory / "summary.json").read_text())
        except (OSError, ValueError):
            return None
        return next((value for name, value in summary.items() if name.endswith("return_mean")), None)


@dataclass(frozen=True)
class Plan:
    """The runs of a benchmark: every recipe on every task with every seed.

    Args:
        recipes: for each label, the recipe's name followed by its options.
        tasks: for each task's name, its options.
        seeds: the seeds of each pair of recipe and task.
        options: options of all runs.
        output: the directory below which each run has its own.

    Raises:
        UserError: where two tasks would share a directory.

    >>> plan = Plan({"vdn": ["vdn"], "slow": ["vdn", "lr=1e-4"]}, {"matrix/climbing": []}, [7, 8], [], Path("b"))
    >>> [run.name for run in plan.runs()]  # doctest: +NORMALIZE_WHITESPACE
    ['matrix/climbing/vdn/seed_7', 'matrix/climbing/slow/seed_7',
     'matrix/climbing/vdn/seed_8', 'matrix/climbing/slow/seed_8']
    """

    recipes: dict[str, list[str]]
    tasks: dict[str, list[str]]
    seeds: list[int]
    options: list[str] = field(default_factory=list)
    output: Path = Path("benchmark")

    def __post_init__(self) -> None:
        taken: dict[str, str] = {}
        for run in self.runs():
            if taken.setdefault(run.name, run.task) != run.task:
                raise UserError(
                    f"tasks: {taken[run.name]} and {run.task} would share the directory {run.name}; rename a file or "
                    "class of one"
                )

    def runs(self) -> Iterator[PlannedRun]:
        """All runs in the order in which they start: seed by seed, so that all recipes advance evenly on all tasks."""
        for seed in self.seeds:
            for task, task_options in self.tasks.items():
                for label, (recipe, *recipe_options) in self.recipes.items():
                    options = (*self.options, *task_options, *recipe_options)
                    yield PlannedRun(label, recipe, task, seed, options, self.output)
