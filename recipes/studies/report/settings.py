"""Runs of one task grouped by their settings: those that differ in their seed alone are one curve."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ctde_kit.errors import UserError
from ctde_kit.files import JsonObject
from ctde_kit.recipes.configs.data import KIND, flat_options
from ctde_kit.recipes.studies.report.sources import MAY_DIFFER, MAY_DIFFER_IN_TASK, Found, read_sources

Settings = Mapping[str, Any]  # plain values, of yaml


def read_by_settings(sources: Sequence[Path], read: Callable[[Path], JsonObject]) -> Found:
    """All runs in directories and below them, labeled by recipe and the options in which the recipe's runs differ.

    A recipe whose runs all have the same options is labeled by its name alone.

    Args:
        sources: run directories, or directories that hold them.
        read: gives all options of the run in a directory.

    Raises:
        UserError: for directories without runs, for fewer than two runs that have ended, and for several tasks.
    """
    runs = list(dict.fromkeys(run for source in sources for run in _runs(source)))
    ended = [run for run in runs if (run / "summary.json").exists()]
    if len(ended) < 2:
        waiting = f", and {len(runs) - len(ended)} that have not ended" if len(ended) < len(runs) else ""
        raise UserError(
            f"expected two runs that have ended, or more, found {len(ended)}{waiting}; give several RUN_DIRs"
        )
    configs = {run: read(run) for run in ended}
    _check_task(configs)
    labels = _labels(configs)
    found = Found(unfinished=[run for run in runs if run not in configs])
    for run in ended:
        _add(read_sources([run]), labels[run], found)
    return found


def _runs(source: Path) -> Iterator[Path]:
    if not source.is_dir():
        found = "it is a file" if source.is_file() else "there is no such directory"
        raise UserError(f"{source}: {found}; give directories that runs printed, or that hold such directories")
    runs = sorted(path.parent for path in source.rglob("config.yaml"))
    if not runs:
        raise UserError(f"{source}: it holds no run (there is no config.yaml); give directories that runs printed")
    yield from (run.resolve() for run in runs)


def _add(single: Found, label: str, found: Found) -> None:
    """Add the curves, facts and options of one run to ``found``, with ``label`` in place of the run's own label.

    Raises:
        UserError: where a run of the same setting and seed is there already.
    """
    for (task, _, seed), path in single.paths.items():
        other = found.paths.setdefault((task, label, seed), path)
        if other != path:
            raise UserError(f"{label} on {task}, seed {seed}: it is there twice, {other} and {path}; leave one out")
    found.curves += [dataclasses.replace(curve, label=label) for curve in single.curves]
    found.facts += single.facts[:1]
    found.populations = {
        path: single.populations.get(path, 0) + found.populations.get(path, 0)
        for path in single.populations | found.populations
    }
    found.configs |= {(task, label, seed): config for (task, _, seed), config in single.configs.items()}
    found.frames_per_second |= {
        (task, label, seed): speed for (task, _, seed), speed in single.frames_per_second.items()
    }


def _check_task(configs: Mapping[Path, Settings]) -> None:
    (first, theirs), *others = configs.items()
    for run, config in others:
        for name in ("name", *sorted(theirs["task"] | config["task"])):
            ours, other = config["task"].get(name), theirs["task"].get(name)
            if name not in MAY_DIFFER_IN_TASK and ours != other:
                raise UserError(
                    f"{run} is a run with task.{name}={ours}, {first} with {other}; compare runs of one task, or make "
                    "a page of several with `ctde report`"
                )


def _labels(configs: Mapping[Path, Settings]) -> dict[Path, str]:
    plain = {
        run: flat_options({name: value for name, value in config.items() if name not in MAY_DIFFER})
        for run, config in configs.items()
    }
    labels: dict[Path, str] = {}
    for run, settings in plain.items():
        alike = [other for other in plain.values() if other["algorithm"] == settings["algorithm"]]
        differing = _differing(alike)
        shown = [f"{name.removesuffix(f'.{KIND}')}={_text(settings[name])}" for name in differing if name in settings]
        labels[run] = " ".join([settings["algorithm"], *shown])
    return labels


def _differing(several: Sequence[Settings]) -> list[str]:
    """The options in which some runs differ; an option of a part counts only between runs with that kind of part."""
    absent = object()
    names = dict.fromkeys(name for settings in several for name in settings)
    differing: list[str] = []
    for name in names:
        values: dict[tuple[object, ...], object] = {}
        for settings in several:
            value = settings.get(name, absent)
            if values.setdefault(_kinds(settings, name), value) != value:
                differing.append(name)
                break
    return differing


def _kinds(settings: Settings, name: str) -> tuple[object, ...]:
    """The kinds of the parts that the option ``name`` is in, such as those of ``critic`` and ``critic.network``."""
    places = name.removesuffix(f".{KIND}").split(".")[:-1]
    return tuple(settings.get(".".join([*places[: depth + 1], KIND])) for depth in range(len(places)))


def _text(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return "null" if value is None else str(value).lower()
    return f"[{','.join(map(_text, value))}]" if isinstance(value, list) else str(value)
