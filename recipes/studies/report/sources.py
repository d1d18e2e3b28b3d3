"""Reads the runs of a report from run directories and from files in marl-eval's format."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ctde_kit.errors import UserError
from ctde_kit.files import JsonObject
from ctde_kit.recipes.configs.data import flat_options
from ctde_kit.recipes.studies.report.plans import PlanProgress, read_plans
from ctde_kit.recipes.wiring.population_directory import EXCHANGES_FILE, MEMBERS
from ctde_kit.recipes.wiring.saved_runs import SavedRun
from ctde_kit.training import read_evaluations, read_metrics
from ctde_kit.training.reporting import RunCurve, is_marl_eval, read_marl_eval

# Runs of one label may differ in their seed, and in the other options here, which change nothing in what is learned.
MAY_DIFFER = ("seed", "device", "compile", "threads", "logger", "video", "checkpoint", "evaluation")
# Runs of one task may differ in these.
MAY_DIFFER_IN_TASK = ("n_envs", "n_workers", "continuous_actions")
# How many options errors name.
SHOWN = 3


@dataclass
class Found:
    """The runs that were found in the sources of a report.

    Args:
        curves: the returns of the runs that have ended.
        unfinished: the directories of runs that have not.
        facts: the content of ``facts.json`` of each run that has one.
        configs: all options of each run, by task, label and seed.
        frames_per_second: the speed of training, evaluations not counted, by task, label and seed.
        plans: how far each benchmark is whose output is among the sources.
        paths: the directory of each run, by task, label and seed.
        populations: by the directory of a population that exchanged critics, how many of its members are here.
    """

    curves: list[RunCurve] = field(default_factory=list)
    unfinished: list[Path] = field(default_factory=list)
    facts: list[JsonObject] = field(default_factory=list)
    configs: dict[tuple[str, str, int], JsonObject] = field(default_factory=dict)
    frames_per_second: dict[tuple[str, str, int], float] = field(default_factory=dict)
    plans: list[PlanProgress] = field(default_factory=list)
    paths: dict[tuple[str, str, int], Path] = field(default_factory=dict)
    populations: dict[Path, int] = field(default_factory=dict)

    def bounds(self, chosen: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        """By task, the bounds that are ``chosen``, and for other tasks those that the benchmarks of the runs have.

        Raises:
            UserError: where two benchmarks have different ones.
        """
        bounds = dict(chosen)
        for plan in self.plans:
            for task, theirs in plan.bounds.items():
                if bounds.setdefault(task, theirs) != theirs and task not in chosen:
                    raise UserError(
                        f"{plan.file}: bounds: {task} has {list(theirs)}, another benchmark {list(bounds[task])}; "
                        f"choose with bounds.{task}=[LOW,HIGH]"
                    )
        return bounds


def read_sources(sources: Sequence[Path]) -> Found:
    """All runs in directories, at any depth, and in files of marl-eval's format.

    A run in a directory ``LABEL/seed_N``, as benchmarks and studies name them, has the label ``LABEL``; any other run
    has its algorithm's name. If an earlier source has runs with the same label, the source's name is added to it.

    Raises:
        UserError: for sources without runs, and for runs of one label that differ in more than their seed.
    """
    found = Found()
    for source in sources:
        if not source.exists():
            raise UserError(f"{source}: there is no such directory or file; give one that holds runs")
        earlier = {curve.label for curve in found.curves}
        before = len(found.curves) + len(found.unfinished)
        for curve in _read(source, found, earlier):
            found.curves.append(curve)
        found.plans += read_plans(source) if source.is_dir() else []
        if len(found.curves) + len(found.unfinished) == before:
            raise UserError(
                f"{source}: it holds no run, and no file in marl-eval's format; give the output of `ctde benchmark`, "
                "or a directory with runs below it"
            )
    _check_alike(found.configs)
    return found


def _read(source: Path, found: Found, earlier: set[str]) -> Iterator[RunCurve]:
    def named(curve: RunCurve) -> RunCurve:
        return dataclasses.replace(curve, label=f"{curve.label} ({source.stem})") if curve.label in earlier else curve

    if source.is_file():
        yield from map(named, read_marl_eval(source))
        return
    runs = sorted(path.parent for path in source.rglob("config.yaml"))
    for run in runs:
        if not (run / "summary.json").exists():
            found.unfinished.append(run)
            continue
        config = SavedRun(run).config
        summary = json.loads((run / "summary.json").read_text())
        if run.parent.name == MEMBERS and _exchanged(run.parents[1]):
            found.populations[run.parents[1]] = found.populations.get(run.parents[1], 0) + 1
        if (run / "facts.json").is_file():
            found.facts.append(json.loads((run / "facts.json").read_text()))
        for curve in map(named, _curves(run, config, summary)):
            key = curve.task, curve.label, curve.seed
            if key in found.paths:
                raise _twice(curve, (found.paths[key], found.configs[key]), (run, config))
            found.paths[key] = run
            found.configs[key] = config
            found.frames_per_second[key] = summary["frames_per_second"]
            yield curve
    for path in sorted(source.rglob("*.json")):
        # A report of these runs may lie beside them; its file has them once more.
        is_report = (path.parent / "report.html").exists()
        if not is_report and not any(path.is_relative_to(run) for run in runs) and is_marl_eval(path):
            yield from map(named, read_marl_eval(path))


def _curves(run: Path, config: JsonObject, summary: JsonObject) -> Iterator[RunCurve]:
    """The run's one curve; where groups compete, one curve per group, whose task is named ``TASK (GROUP)``."""
    label = run.parent.name if run.name.startswith("seed_") else config["algorithm"]
    rows = list(read_metrics(run / "metrics.csv"))
    names = [name for name in summary if name.startswith("eval/") and name.endswith("return_mean")]
    for name in ["eval/return_mean"] if "eval/return_mean" in names else names:
        metric = name.removeprefix("eval/")
        group = metric.rpartition("/")[0]
        evaluated = [row for row in rows if name in row]
        frames = [int(row["frames"]) for row in evaluated]
        episodes = _episodes(run, metric)
        yield RunCurve(
            task=f"{config['task']['name']} ({group})" if group else config["task"]["name"],
            label=label,
            seed=int(config["seed"]),
            frames=np.array(frames),
            episodes=tuple(episodes.get(at, (float(row[name]),)) for at, row in zip(frames, evaluated, strict=True)),
            seconds=np.array([row["seconds"] for row in evaluated]),
            absolute=summary.get(f"absolute/{metric}"),
        )


def _exchanged(population: Path) -> bool:
    """Whether critics were exchanged among the members of the population in a directory."""
    exchanges = population / EXCHANGES_FILE
    return exchanges.is_file() and exchanges.stat().st_size > 0


def _episodes(run: Path, metric: str) -> dict[int, tuple[float, ...]]:
    """For each evaluation's frames, the return of every episode; empty for a run that did not keep them."""
    path, found = run / "evaluations.jsonl", {}
    if path.is_file():
        for record in read_evaluations(path):
            found.setdefault(record["frames"], []).append(record[metric])
    return {frames: tuple(values) for frames, values in found.items()}


def _twice(curve: RunCurve, first: tuple[Path, JsonObject], second: tuple[Path, JsonObject]) -> UserError:
    """The error for two runs of one task, label and seed: where they are, and in which options they differ."""
    paths = f"{first[0]} and {second[0]}"
    ours, theirs = (
        flat_options({k: v for k, v in config.items() if k not in MAY_DIFFER}) for _, config in (first, second)
    )
    differing = [name for name in dict.fromkeys([*ours, *theirs]) if ours.get(name) != theirs.get(name)]
    if not differing:
        return UserError(f"{curve.label} on {curve.task}, seed {curve.seed}: it is there twice, {paths}; leave one out")
    shown = ", ".join(f"{name} ({ours.get(name)} and {theirs.get(name)})" for name in differing[:SHOWN])
    more = f" and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
    return UserError(
        f"{curve.label} on {curve.task}, seed {curve.seed}: {paths} differ in {shown}{more}; put variants into "
        "directories of their own, LABEL/seed_N, or use `ctde compare`"
    )


def _check_alike(configs: dict[tuple[str, str, int], JsonObject]) -> None:
    """Raise unless runs of one label differ in their seed alone, and all runs of one task have the same arguments."""
    of_label: dict[tuple[str, str], JsonObject] = {}
    of_task: dict[str, tuple[str, JsonObject]] = {}
    for (task, label, seed), config in configs.items():
        plain = {name: value for name, value in config.items() if name not in MAY_DIFFER}
        plain["task"] = {name: value for name, value in config["task"].items() if name != "n_workers"}
        first = of_label.setdefault((task, label), plain)
        name = _difference(first, plain)
        if name:
            raise UserError(
                f"{label} on {task}: seed {seed} has {name}={plain.get(name)}, another {first.get(name)}; compare runs "
                "that differ in their seed alone, and put variants into directories of their own, LABEL/seed_N"
            )
        arguments = {name: value for name, value in config["task"].items() if name not in MAY_DIFFER_IN_TASK}
        other, theirs = of_task.setdefault(task, (label, arguments))
        name = _difference(theirs, arguments)
        if name:
            raise UserError(
                f"{task}: {label} has task.{name}={arguments.get(name)}, {other} has {theirs.get(name)}; compare runs "
                "of one task"
            )


def _difference(ours: JsonObject, theirs: JsonObject) -> str | None:
    return next((name for name in sorted(ours | theirs) if ours.get(name) != theirs.get(name)), None)
