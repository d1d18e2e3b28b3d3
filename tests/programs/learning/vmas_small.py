"""Keep the ended runs of ``ctde benchmark benchmark=vmas_small``, and show them in docs/studies/vmas_small.md.

Run ``python -m tests.programs.learning.vmas_small [DIRECTORY ...] [--benchmarl OUTPUT]``; ``OUTPUT`` is that of
``nox -s peers -- OUTPUT``.

``docs/results/vmas_small.json`` has the mean of each evaluation, in marl-eval's format: ``ctde report`` can set other
runs beside it. Runs that it has already stay, unless one of the same task, recipe and seed is given. The settings that
BenchMARL's tuning seed has chosen are in ``docs/results/vmas_small_benchmarl.json``.
"""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path

import numpy as np

from ctde_kit.recipes.studies.report.sources import read_sources
from ctde_kit.training.reporting import Comparison, RunCurve, interquartile_means, plot_tasks
from tests.programs.learning.kept_runs import BENCHMARL, KeptRuns
from tests.programs.learning.measure import ROOT, machine
from tests.programs.marked import write_between

PAGE = ROOT / "docs" / "studies" / "vmas_small.md"
IMAGE = ROOT / "docs" / "images" / "vmas_small.png"
ALGORITHMS = ("mappo", "qmix", "maddpg")
LABELS = tuple(f"{algorithm}{suffix}" for algorithm in ALGORITHMS for suffix in ("", BENCHMARL))
TASKS = ("vmas/navigation", "vmas/balance", "vmas/sampling")


def main() -> None:
    """Read the directories, and write the file, the picture and the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directories", nargs="*", type=Path, help="outputs of the benchmark")
    parser.add_argument("--benchmarl", type=Path, metavar="OUTPUT", help="the output of the same runs by BenchMARL")
    arguments = parser.parse_args()
    runs = KeptRuns()
    if arguments.directories:
        runs.add(read_sources(arguments.directories).curves)
    if arguments.benchmarl is not None:
        runs.keep(arguments.benchmarl)
    curves = runs.curves()
    plot_tasks(Comparison(curves), IMAGE)
    told = f"The last of these runs were kept on {datetime.date.today().isoformat()}; {machine()}."
    write_between(PAGE, "vmas_small", "\n".join([*_table(curves), "", *_over_tasks(curves), "", told]))
    write_between(PAGE, "benchmarl_settings", "\n".join(_settings(runs)))


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


def _settings(runs: KeptRuns) -> list[str]:
    """What BenchMARL's tuning seed has ended with in each setting."""
    lines = ["| task | algorithm | `fine_tuned` | `few_frames` | chosen |", "|---|---|---|---|---|"]
    for task, of_task in runs.chosen().items():
        for algorithm, told in of_task.items():
            if "chosen" in told:
                ends = told["returns"]
                ends_shown = f"{ends['fine_tuned']:.4g} | {ends['few_frames']:.4g}"
                lines.append(f"| {task} | {algorithm} | {ends_shown} | `{told['chosen']}` |")
    return lines


def _shown(label: str) -> str:
    return f"`{label.removesuffix(BENCHMARL)}`{' (BenchMARL)' if label.endswith(BENCHMARL) else ''}"


if __name__ == "__main__":
    main()
