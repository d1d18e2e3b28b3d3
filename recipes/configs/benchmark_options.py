"""The options of ``ctde benchmark``: what a benchmark's file says, and what the command line adds."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ctde_kit.cores import usable_cores
from ctde_kit.errors import UserError

FILE_KEYS = ("recipes", "tasks", "seeds", "options", "bounds")
# Options that a benchmark sets for each of its runs, and which of its own options sets them.
SET_BY_BENCHMARK = {"task": "tasks", "seed": "seeds", "hydra.run.dir": "output", "resume": "output"}


@dataclass
class BenchmarkOptions:
    """A benchmark: every recipe on every task with every seed.

    Args:
        recipes: names, or by label the command line of a variant: ``{slow: qmix lr=1e-4}``.
        tasks: names, or for each name the options of that task: ``{vmas/navigation: task.params.n_agents=5}``.
        seeds: of each recipe on each task.
        options: of all runs, ``NAME=VALUE``.
        bounds: by task, the returns that count as 0 and 1 in a report of the runs.
        output: the directory of all runs.
        jobs: how many runs at a time; null for as many as there are cores.
        minutes: after which runs in progress are stopped, for the next call to go on with; null for no limit.
        retry: run what failed before once more.
    """

    recipes: dict[str, list[str]] = field(default_factory=dict)
    tasks: dict[str, list[str]] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=lambda: [100, 101, 102, 103, 104])
    options: list[str] = field(default_factory=list)
    bounds: dict[str, tuple[float, float]] = field(default_factory=dict)
    output: Path | None = None
    jobs: int | None = None
    minutes: float | None = None
    retry: bool = False

    def update(self, name: str, value: Any, source: str) -> None:
        """Set an option as a file or a command line has it.

        Raises:
            UserError: for a value that does not fit the option, naming ``source``.
        """
        readers = {
            "recipes": lambda: _variants(value),
            "tasks": lambda: {task: options for task, (_, *options) in _variants(value).items()},
            "seeds": lambda: [_whole(seed) for seed in _listed(value)],
            "options": lambda: [option for part in _listed(value) for option in shlex.split(str(part))],
            "bounds": lambda: _bounds(value),
            "output": lambda: Path(value),
            "jobs": lambda: _whole(value, least=1),
            "minutes": lambda: _positive(value),
            "retry": lambda: {"true": True, "false": False}[str(value).lower()],
        }
        try:
            setattr(self, name, readers[name]())
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{source}: {name}={value}: expected {EXPECTED[name]}") from error

    def check(self) -> None:
        """Raise ``UserError`` if an option is missing, or if a run is given what the benchmark itself sets."""
        for name, example in (("recipes", "mappo,qmix"), ("tasks", "vmas/navigation"), ("output", "DIR")):
            if not getattr(self, name):
                or_else = "" if name == "output" else ", or choose a benchmark"
                raise UserError(f"{name}: nothing is given; say {name}={example}{or_else}")
        lines = [*self.recipes.values(), *self.tasks.values(), self.options]
        for option in [option for line in lines for option in line if "=" in option]:
            name = option.partition("=")[0]
            if name in SET_BY_BENCHMARK:
                raise UserError(f"{option}: a benchmark gives each run its own; use {SET_BY_BENCHMARK[name]}")
        if len({*self.seeds}) != len(self.seeds):
            raise UserError(f"seeds={self.seeds}: expected each once")
        cores = usable_cores()
        if self.jobs is not None and self.jobs > cores:
            raise UserError(f"jobs={self.jobs}: expected at most one per core, and {cores} cores may be used here")

    @property
    def threads(self) -> int:
        """The CPU threads of each run, so that all runs together have at most one thread per core."""
        given = os.environ.get("OMP_NUM_THREADS", "")
        fair = max(1, usable_cores() // (self.jobs or usable_cores()))
        return min(fair, int(given)) if given.isdigit() and int(given) > 0 else fair


EXPECTED = {
    "recipes": "names, as in mappo,qmix, or in a file a label and a command line for each variant",
    "tasks": "names, as in vmas/navigation,vmas/balance, or in a file a name and options for each",
    "seeds": "whole numbers, as in 0,1,2",
    "options": "options of recipes, as in [lr=1e-4,gamma=0.95]",
    "bounds": "in a file, for tasks their lowest and highest return, as in {matrix/climbing: [0, 11]}",
    "output": "a directory",
    "jobs": "a whole number above 0",
    "minutes": "a number above 0",
    "retry": "true or false",
}


def _variants(value: Any) -> dict[str, list[str]]:
    """A name and options for each label, from ``a,b``, a list of names, or a mapping of labels to command lines."""
    if isinstance(value, Mapping):
        lines = {str(label): _line(label, line) for label, line in value.items()}
    else:
        lines = {str(name): [str(name)] for name in _listed(value)}
    if not lines or any(not line or "=" in line[0] for line in lines.values()):
        raise ValueError
    return lines


def _line(label: Any, line: Any) -> list[str]:
    """A variant's name and options; where the line holds options alone, the label is the name."""
    words = shlex.split("" if line is None else str(line))
    return [str(label), *words] if not words or "=" in words[0] else words


def _listed(value: Any) -> list[Any]:
    if isinstance(value, str):
        value = [part.strip() for part in value.removeprefix("[").removesuffix("]").split(",")]
    elif not isinstance(value, list):
        value = [value]
    if not all(isinstance(part, int) or (isinstance(part, str) and part) for part in value):
        raise ValueError
    return value


def _bounds(value: Any) -> dict[str, tuple[float, float]]:
    if not isinstance(value, Mapping):
        raise TypeError
    bounds = {str(task): (float(low), float(high)) for task, (low, high) in value.items()}
    if not all(-math.inf < low < high < math.inf for low, high in bounds.values()):
        raise ValueError
    return bounds


def _whole(value: Any, least: int = 0) -> int:
    if isinstance(value, bool) or int(value) != float(value) or int(value) < least:
        raise ValueError
    return int(value)


def _positive(value: Any) -> float | None:
    if str(value) == "null":
        return None
    if not 0 < float(value) < math.inf:
        raise ValueError
    return float(value)
