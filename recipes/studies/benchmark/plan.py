"""Which runs a benchmark has, and what has become of each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

# Deep enough for `frames_N.pt` alone: what a benchmark asks of a run directory needs no torch.
CHECKPOINTS = "checkpoints/frames_*.pt"


class Status(Enum):
    """What has become of a run."""

    NEW = "new"
    STOPPED = "stopped"
    ENDED = "ended"
    FAILED = "failed"


@dataclass(frozen=True)
class PlannedRun:
    """One run of a benchmark.

    Args:
        label: names it in tables; the recipe's name, or that of a variant.
        recipe: whose command trains.
        task: its name.
        seed: of the run.
        options: overrides, without task, seed and directory.
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
        """Of its directory below ``output``."""
        # Of one's own code by its name alone: a path may lead out of the directory.
        task = f"{self.task.partition('/')[0]}/{self.task.rpartition('/')[2]}" if ":" in self.task else self.task
        return f"{task}/{self.label}/seed_{self.seed}"

    @property
    def directory(self) -> Path:
        return self.output / self.name

    @property
    def log(self) -> Path:
        """What it printed, of all its starts."""
        return self.output / "logs" / f"{self.name.replace('/', '__')}.log"

    @property
    def failure(self) -> Path:
        """Why it failed; there is no such file where it did not."""
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
        """The command line that starts it, or goes on with it."""
        if self.status is Status.STOPPED or any(self.directory.glob(CHECKPOINTS)):
            return [self.recipe, f"resume={self.directory}"]
        chosen = [f"task={self.task}", f"seed={self.seed}", f"hydra.run.dir={self.directory}"]
        return [self.recipe, *chosen, *self.options]

    def frames(self) -> int:
        """Collected so far, as ``metrics.csv`` has it."""
        try:
            *_, last = (self.directory / "metrics.csv").read_text().splitlines()
            return int(float(last.partition(",")[0]))
        except (OSError, ValueError):
            return 0

    def result(self) -> float | None:
        """The final policy's mean return, of the first group where groups compete; nothing before the run has ended."""
        try:
            summary = json.loads((self.directory / "summary.json").read_text())
        except (OSError, ValueError):
            return None
        return next((value for name, value in summary.items() if name.endswith("return_mean")), None)


@dataclass(frozen=True)
class Plan:
    """The runs of a benchmark: every recipe on every task with every seed.

    Args:
        recipes: by label, the recipe's name and its options.
        tasks: by name, its options.
        seeds: of each pair.
        options: of all runs.
        output: where they go.

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

    def runs(self) -> Iterator[PlannedRun]:
        """In the order in which they start: whenever time is up, all pairs have about as many seeds."""
        for seed in self.seeds:
            for task, task_options in self.tasks.items():
                for label, (recipe, *recipe_options) in self.recipes.items():
                    options = (*self.options, *task_options, *recipe_options)
                    yield PlannedRun(label, recipe, task, seed, options, self.output)
