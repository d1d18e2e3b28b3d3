"""Keep the ended runs of ``ctde benchmark benchmark=vmas_small``, and show them in docs/studies/vmas_small.md.

Run ``python -m tests.programs.learning.vmas_small [DIRECTORY ...] [--benchmarl OUTPUT]``; ``OUTPUT`` is that of
``nox -s peers -- OUTPUT``.

``docs/results/vmas_small.json`` has the mean of each evaluation, in marl-eval's format: ``ctde report`` can set other
runs beside it. Runs that it has already stay, unless one of the same task, recipe and seed is given. The settings that
BenchMARL's tuning seed has chosen are in ``docs/results/vmas_small_benchmarl.json``.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
from pathlib import Path

import numpy as np

from ctde_kit.recipes.studies.report.sources import read_sources
from ctde_kit.training.reporting import (
    Comparison,
    RunCurve,
    interquartile_means,
    plot_tasks,
    read_marl_eval,
    write_marl_eval,
)
from tests.programs.learning.measure import ROOT, machine
from tests.programs.marked import write_between

RESULTS = ROOT / "docs" / "results" / "vmas_small.json"
CHOSEN = ROOT / "docs" / "results" / "vmas_small_benchmarl.json"
PAGE = ROOT / "docs" / "studies" / "vmas_small.md"
IMAGE = ROOT / "docs" / "images" / "vmas_small.png"
# In lower case, as marl-eval writes all names.
BENCHMARL = " (benchmarl)"
ALGORITHMS = ("mappo", "qmix", "maddpg")
LABELS = tuple(f"{algorithm}{suffix}" for algorithm in ALGORITHMS for suffix in ("", BENCHMARL))
TASKS = ("vmas/navigation", "vmas/balance", "vmas/sampling")


def main() -> None:
    """Read the directories, and write the file, the picture and the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directories", nargs="*", type=Path, help="outputs of the benchmark")
    parser.add_argument("--benchmarl", type=Path, metavar="OUTPUT", help="the output of the same runs by BenchMARL")
    arguments = parser.parse_args()
    curves: dict[tuple[str, str, int], RunCurve] = {}
    for curve in map(_means, [*_kept(), *read_sources(arguments.directories).curves, *_benchmarl(arguments.benchmarl)]):
        curves[curve.task, curve.label, curve.seed] = curve
    ordered = [curves[key] for key in sorted(curves)]
    write_marl_eval(ordered, RESULTS)
    plot_tasks(Comparison(ordered), IMAGE)
    told = f"The last of these runs were kept on {datetime.date.today().isoformat()}; {machine()}."
    write_between(PAGE, "vmas_small", "\n".join([*_table(ordered), "", *_over_tasks(ordered), "", told]))
    write_between(PAGE, "benchmarl_settings", "\n".join(_settings()))


def _kept() -> list[RunCurve]:
    """The runs that are kept, with their absolute metrics, which ``read_marl_eval`` leaves out."""
    if not RESULTS.exists():
        return []
    content = {environment.lower(): tasks for environment, tasks in json.loads(RESULTS.read_text()).items()}
    curves = []
    for curve in read_marl_eval(RESULTS):
        environment, task = curve.task.split("/")
        (absolute,) = content[environment][task][curve.label][f"seed_{curve.seed}"]["absolute_metrics"]["return"]
        curves.append(dataclasses.replace(curve, absolute=absolute))
    return curves


def _benchmarl(output: Path | None) -> list[RunCurve]:
    """BenchMARL's reported runs; the settings that they have are kept, too."""
    if output is None:
        return []
    known = json.loads(CHOSEN.read_text()) if CHOSEN.exists() else {}
    for task, chosen in json.loads((output / "chosen.json").read_text()).items():
        known.setdefault(task, {}).update(chosen)
    CHOSEN.write_text(json.dumps(known, indent=1) + "\n")
    curves = read_sources([output / "reported"]).curves
    return [dataclasses.replace(curve, label=f"{curve.label}{BENCHMARL}") for curve in curves]


def _means(curve: RunCurve) -> RunCurve:
    """The curve with one number for each evaluation, and without seconds: the runs shared their machine."""
    means = tuple((round(float(mean), 4),) for mean in curve.returns)
    return dataclasses.replace(curve, episodes=means, seconds=None)


def _table(curves: list[RunCurve]) -> list[str]:
    lines = ["| task | recipe | mean | final greedy return by seed |", "|---|---|---|---|"]
    for task in TASKS:
        for label in LABELS:
            found = [curve for curve in curves if (curve.task, curve.label) == (task, label)]
            if found:
                mean = np.mean([curve.final for curve in found])
                seeds = ", ".join(f"{curve.final:.4g} ({curve.seed})" for curve in found)
                lines.append(f"| {task} | {_shown(label)} | {mean:.4g} | {seeds} |")
    return lines


def _over_tasks(curves: list[RunCurve]) -> list[str]:
    """The normalized final returns of those that have runs on all tasks."""
    comparison = Comparison(curves)
    means = interquartile_means(comparison.final_scores())
    lines = ["| recipe | seeds on each task | normalized IQM over tasks (95 % interval) |", "|---|---|---|"]
    for label in (label for label in LABELS if label in means):
        lines.append(f"| {_shown(label)} | {comparison.n_seeds(label)} | {means[label].text()} |")
    return lines


def _settings() -> list[str]:
    """What BenchMARL's tuning seed has ended with in each setting."""
    chosen = json.loads(CHOSEN.read_text()) if CHOSEN.exists() else {}
    lines = ["| task | algorithm | `fine_tuned` | `few_frames` | chosen |", "|---|---|---|---|---|"]
    for task, of_task in chosen.items():
        for algorithm, told in of_task.items():
            ends = told["returns"]
            ends_shown = f"{ends['fine_tuned']:.4g} | {ends['few_frames']:.4g}"
            lines.append(f"| {task} | {algorithm} | {ends_shown} | `{told['chosen']}` |")
    return lines


def _shown(label: str) -> str:
    return f"`{label.removesuffix(BENCHMARL)}`{' (BenchMARL)' if label.endswith(BENCHMARL) else ''}"


if __name__ == "__main__":
    main()
