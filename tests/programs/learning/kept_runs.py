"""The runs of ``ctde benchmark benchmark=vmas_small`` that docs/results has, the kit's own and BenchMARL's."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ctde_kit.recipes.studies.report.sources import read_sources
from ctde_kit.training.reporting import RunCurve, read_marl_eval, write_marl_eval
from tests.programs.learning.measure import ROOT

# In lower case, as marl-eval writes all names.
BENCHMARL = " (benchmarl)"


class KeptRuns:
    """Curves in marl-eval's format, and the settings of BenchMARL that its tuning seed has chosen.

    Args:
        directory: that has ``vmas_small.json`` and ``vmas_small_benchmarl.json``, or will.
    """

    def __init__(self, directory: Path = ROOT / "docs" / "results") -> None:
        self.results, self.settings = directory / "vmas_small.json", directory / "vmas_small_benchmarl.json"

    def curves(self) -> list[RunCurve]:
        """All of them, with their absolute metrics, which ``read_marl_eval`` leaves out."""
        if not self.results.exists():
            return []
        content = {environment.lower(): tasks for environment, tasks in json.loads(self.results.read_text()).items()}
        curves = []
        for curve in read_marl_eval(self.results):
            environment, task = curve.task.split("/")
            (absolute,) = content[environment][task][curve.label][f"seed_{curve.seed}"]["absolute_metrics"]["return"]
            curves.append(dataclasses.replace(curve, absolute=absolute))
        return curves

    def add(self, curves: Iterable[RunCurve]) -> None:
        """Keep ``curves``, in place of those of the same task, label and seed."""
        kept = {(curve.task, curve.label, curve.seed): curve for curve in [*self.curves(), *map(_means, curves)]}
        write_marl_eval([kept[key] for key in sorted(kept)], self.results)

    def chosen(self) -> dict[str, Any]:
        """By task and algorithm, how high BenchMARL's tuning seed ended with each setting, and which one is chosen."""
        return json.loads(self.settings.read_text()) if self.settings.exists() else {}

    def keep(self, output: Path) -> None:
        """Keep what ``benchmarl_suite`` has written in ``output``."""
        chosen = self.chosen()
        path = output / "chosen.json"
        for task, told in (json.loads(path.read_text()) if path.exists() else {}).items():
            chosen.setdefault(task, {}).update(told)
        self.settings.write_text(json.dumps(chosen, indent=1) + "\n")
        if any((output / "reported").rglob("*.json")):
            curves = read_sources([output / "reported"]).curves
            self.add(dataclasses.replace(curve, label=f"{curve.label}{BENCHMARL}") for curve in curves)

    def restore(self, output: Path) -> None:
        """Write what is kept of BenchMARL to ``output``, as if ``benchmarl_suite`` had run it there."""
        output.mkdir(parents=True, exist_ok=True)
        if not (output / "chosen.json").exists():
            (output / "chosen.json").write_text(json.dumps(self.chosen(), indent=1) + "\n")
        for curve in self.curves():
            if not curve.label.endswith(BENCHMARL):
                continue
            label = curve.label.removesuffix(BENCHMARL)
            path = output / "reported" / curve.task.split("/")[1] / label / f"{curve.seed}.json"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                write_marl_eval([dataclasses.replace(curve, label=label)], path)


def _means(curve: RunCurve) -> RunCurve:
    """The curve with one number for each evaluation, and without seconds: the runs shared their machine."""
    means = tuple((round(float(mean), 4),) for mean in curve.returns)
    return dataclasses.replace(curve, episodes=means, seconds=None)
