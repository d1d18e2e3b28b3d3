"""The runs of a sweep, read back as curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ctde_kit.errors import UserError
from ctde_kit.files import JsonObject
from ctde_kit.recipes.wiring.saved_runs import SavedRun
from ctde_kit.training import read_metrics

MISSING = object()
FIGURE = "eval/return_mean"
# Runs of a study may differ in these alone, those of a layout in their seed.
VARIED = ("critic", "seed")


@dataclass(frozen=True)
class Curves:
    """Greedy evaluations of a study's runs.

    Args:
        config: what all runs share, and one run's critic and seed.
        seeds: of each layout's runs, the same for all.
        frames: at which each run was evaluated, ``[F]``.
        returns: by layout, mean episode returns ``[seeds, F]``.
        changed: options of all runs that are not the study's own, as overrides.
    """

    config: JsonObject
    seeds: list[int]
    frames: np.ndarray
    returns: dict[str, np.ndarray]
    changed: tuple[str, ...] = ()


# The options of the study's own runs, by algorithm and task.
StudyOptions = Callable[[str, str], Mapping[str, object]]


def read_curves(directory: Path, study_options: StudyOptions) -> Curves:
    """The curves of the runs in ``directory``, which are ``LAYOUT/seed_SEED``.

    Args:
        directory: of the runs.
        study_options: what the study's options are where nothing was changed.

    Raises:
        UserError: where there are none, one has not ended, or they do not compare.
    """
    paths = {path: sorted(path.glob("seed_*"), key=_seed) for path in sorted(directory.glob("*")) if path.is_dir()}
    paths = {path.name: runs for path, runs in paths.items() if runs}
    if not paths:
        raise UserError(f"runs={directory}: it holds no LAYOUT/seed_SEED; train with ctde-mappo study=critic_layouts")
    seeds = {name: [_seed(run) for run in runs] for name, runs in paths.items()}
    first = next(iter(seeds))
    for name, found in seeds.items():
        if found != seeds[first]:
            raise UserError(
                f"runs={directory}: {name} has seeds {found}, {first} has {seeds[first]}; train the missing ones"
            )
    configs = {run: SavedRun(run).config for runs in paths.values() for run in runs}
    example, shared = next(iter(configs)), _comparable(next(iter(configs.values())))
    for run, config in configs.items():
        own = _comparable(config)
        if own != shared:
            differing = sorted(key for key in own | shared if own.get(key) != shared.get(key))
            raise UserError(
                f"{run}: {differing[0]} is not what {example} has; compare runs that differ only in critic and seed"
            )
    for name, runs in paths.items():
        if any(configs[run]["critic"] != configs[runs[0]]["critic"] for run in runs):
            raise UserError(f"runs={directory}: the runs of {name} have several critics; train them alike")
    curves = {name: [_evaluations(run) for run in runs] for name, runs in paths.items()}
    frames = curves[first][0][0]
    for name, runs in curves.items():
        if any(not np.array_equal(run[0], frames) for run in runs):
            raise UserError(f"runs={directory}: {name} was evaluated at other frames than {first}; train it again")
    return Curves(
        config=configs[example],
        seeds=seeds[first],
        frames=frames,
        returns={name: np.stack([returns for _, returns in runs]) for name, runs in curves.items()},
        changed=changed_options(shared, study_options),
    )


def changed_options(config: JsonObject, study_options: StudyOptions) -> tuple[str, ...]:
    """Overrides that lead from the study's own options to ``config``."""
    task = config["task"]["name"]
    usual = _leaves(_comparable(study_options(str(config["algorithm"]), task)))
    actual = _leaves(config)
    changed = [f"{key}={_written(value)}" for key, value in actual.items() if usual.get(key, MISSING) != value]
    return (f"task={task}", *changed)


def _leaves(config: object, path: str = "") -> JsonObject:
    if not isinstance(config, Mapping) or not config:
        return {path: config}
    inside = [_leaves(value, f"{path}.{key}" if path else str(key)) for key, value in config.items()]
    return {name: value for leaves in inside for name, value in leaves.items()}


def _written(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return "null" if value is None else str(value).lower()
    return str(value).replace(" ", "")


def _seed(run: Path) -> int:
    number = run.name.removeprefix("seed_")
    if not number.isdigit():
        raise UserError(f"{run}: expected seed_NUMBER, found {run.name}; move it elsewhere")
    return int(number)


def _comparable(config: Mapping[str, object]) -> JsonObject:
    return {key: value for key, value in config.items() if key not in VARIED}


def _evaluations(run: Path) -> tuple[np.ndarray, np.ndarray]:
    if not (run / "summary.json").exists():
        raise UserError(f"{run} has not ended: run the study again, which goes on with what is missing")
    rows = [row for row in read_metrics(run / "metrics.csv") if FIGURE in row]
    return np.array([row["frames"] for row in rows]), np.array([row[FIGURE] for row in rows])
