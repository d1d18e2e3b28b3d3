"""Keep the ended runs of ``ctde benchmark benchmark=vmas_small``, and show them in docs/studies/vmas_small.md.

Run ``python -m tests.programs.learning.vmas_small DIRECTORY ...``.

``docs/results/vmas_small.json`` has the mean of each evaluation, in marl-eval's format: ``ctde report`` can set other
runs beside it. Runs that it has already stay, unless one of the same task, recipe and seed is given.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ctde_kit.recipes.studies.report.sources import read_sources
from ctde_kit.training.reporting import Comparison, RunCurve, plot_tasks, read_marl_eval, write_marl_eval
from tests.programs.learning.measure import ROOT, machine
from tests.programs.marked import write_between

RESULTS = ROOT / "docs" / "results" / "vmas_small.json"
PAGE = ROOT / "docs" / "studies" / "vmas_small.md"
IMAGE = ROOT / "docs" / "images" / "vmas_small.png"
RECIPES = ("mappo", "qmix", "maddpg")
TASKS = ("vmas/navigation", "vmas/balance", "vmas/sampling")


def main() -> None:
    """Read the directories, and write the file, the picture and the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directories", nargs="+", type=Path, help="outputs of the benchmark")
    arguments = parser.parse_args()
    known = read_marl_eval(RESULTS) if RESULTS.exists() else []
    curves = {(curve.task, curve.label, curve.seed): curve for curve in known}
    for curve in map(_means, read_sources(arguments.directories).curves):
        curves[curve.task, curve.label, curve.seed] = curve
    ordered = [curves[key] for key in sorted(curves)]
    write_marl_eval(ordered, RESULTS)
    plot_tasks(Comparison(ordered), IMAGE)
    told = f"The last of these runs were kept on {datetime.date.today().isoformat()}; {machine()}."
    write_between(PAGE, "vmas_small", "\n".join([*_table(ordered), "", told]))


def _means(curve: RunCurve) -> RunCurve:
    """The curve with one number for each evaluation."""
    return dataclasses.replace(curve, episodes=tuple((round(float(mean), 4),) for mean in curve.returns))


def _of(curves: Iterable[RunCurve], task: str, recipe: str) -> list[RunCurve]:
    return [curve for curve in curves if (curve.task, curve.label) == (task, recipe)]


def _table(curves: list[RunCurve]) -> list[str]:
    lines = ["| task | recipe | mean | final greedy return by seed |", "|---|---|---|---|"]
    for task in TASKS:
        for recipe in RECIPES:
            found = _of(curves, task, recipe)
            if found:
                mean = np.mean([curve.final for curve in found])
                seeds = ", ".join(f"{curve.final:.4g} ({curve.seed})" for curve in found)
                lines.append(f"| {task} | `{recipe}` | {mean:.4g} | {seeds} |")
    return lines


if __name__ == "__main__":
    main()
