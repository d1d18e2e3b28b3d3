"""Run the experiments and write their results.

Run ``python -m tests.programs.learning.measure NAME [NAME ...]``.

Each gives ``docs/results/NAME.json`` (command, task arguments, every seed's figure, machine, date) and, unless it is a
row of a table, ``docs/images/NAME.png``.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from ctde_kit.training import read_metrics
from tests.programs.learning.experiments import EXPERIMENTS, Experiment
from tests.programs.marked import write_between
from tests.recipes.command_line import command

ROOT = Path(__file__).parents[3]


def main() -> None:
    """Run what the command line names, all by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(EXPERIMENTS)}; all by default")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "experiments", help="where the runs go")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in EXPERIMENTS]
    if unknown:
        parser.error(f"no experiment {unknown[0]!r}: choose of {', '.join(EXPERIMENTS)}")
    failed = []
    for name in arguments.names or EXPERIMENTS:
        result = run_experiment(name, EXPERIMENTS[name], arguments.runs)
        print(f"{name}: {result['figures']} (bar {result['bar']}): {'reached' if result['reached'] else 'MISSED'}")
        if not result["reached"]:
            failed.append(name)
    sys.exit(1 if failed else 0)


def run_experiment(name: str, experiment: Experiment, runs: Path) -> dict[str, Any]:
    """Train every seed that has no finished run of the same overrides yet, then write result and plot."""
    directories = [runs / name / f"seed_{seed}" for seed in experiment.seeds]
    for seed, directory in zip(experiment.seeds, directories, strict=True):
        record = directory / "experiment.json"
        if record.exists() and json.loads(record.read_text())["overrides"] == experiment.overrides:
            continue
        shutil.rmtree(directory, ignore_errors=True)
        own = [f"seed={seed}", f"hydra.run.dir={directory}"]
        before = processor_seconds()
        subprocess.run(command(experiment.recipe, *experiment.overrides, *own), check=True)
        told = {"overrides": experiment.overrides, "machine": machine(), "date": datetime.date.today().isoformat()}
        record.write_text(json.dumps({**told, "processor_seconds": round(processor_seconds() - before)}))
    records = [json.loads((directory / "experiment.json").read_text()) for directory in directories]
    summaries = [json.loads((directory / "summary.json").read_text()) for directory in directories]
    figures = [round(summary[experiment.figure], 3) for summary in summaries]
    reached = all(figure >= experiment.bar if experiment.above else figure <= experiment.bar for figure in figures)
    on_the_way = evaluations_on_the_way(experiment, directories)
    reached = reached and all(min(asked["figures"]) >= asked["bar"] for asked in on_the_way.values())
    config = OmegaConf.to_container(OmegaConf.load(directories[0] / "config.yaml"))
    result = {
        "command": f"ctde-{experiment.recipe} {' '.join(experiment.overrides)} seed=SEED",
        "figure": experiment.figure,
        "bar": f"{'>=' if experiment.above else '<='} {experiment.bar}",
        "reached": reached,
        "seeds": list(experiment.seeds),
        "figures": figures,
        **on_the_way,
        "seconds": [round(summary["seconds"]) for summary in summaries],
        "episodes": summaries[0]["eval/episodes"],
        "processor_seconds": [record.get("processor_seconds") for record in records],
        "machine": records[-1]["machine"],
        "date": records[-1]["date"],
        "config": {key: value for key, value in config.items() if key not in ("logger",)},
    }
    target = ROOT / "docs" / "results" / f"{name}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n")
    if experiment.plotted:
        plot(name, experiment, directories)
    write_page(experiment.page)
    return result


def processor_seconds() -> float:
    """Of all ended processes that this one started: a measure that other programs disturb little."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def evaluations_on_the_way(experiment: Experiment, directories: list[Path]) -> dict[str, dict[str, Any]]:
    """Every seed's early figure and the lowest of its last ones, where the experiment asks for them."""
    asked: dict[str, dict[str, Any]] = {}
    found = [evaluations(directory, experiment.figure) for directory in directories]
    if experiment.early is not None:
        frames, bar = experiment.early
        asked["early"] = {"frames": frames, "bar": bar, "figures": [round(seed[frames], 3) for seed in found]}
    if experiment.sustained is not None:
        share, bar = experiment.sustained
        lowest = [min(value for frames, value in seed.items() if frames >= max(seed) * (1 - share)) for seed in found]
        rounded = [round(value, 3) for value in lowest]
        asked["sustained"] = {"share": share, "bar": bar, "figures": rounded}
    return asked


def evaluations(directory: Path, figure: str) -> dict[int, float]:
    """The figure of every evaluation of a run, by frames."""
    return {int(row["frames"]): row[figure] for row in read_metrics(directory / "metrics.csv") if figure in row}


def write_page(name_of_page: str) -> None:
    """Put every result of a page that was measured into it, between its two marks."""
    page = next((ROOT / "docs").rglob(f"{name_of_page}.md"))
    images = os.path.relpath(ROOT / "docs" / "images", page.parent)
    lines, rows, told = [], [], ""
    for name, experiment in EXPERIMENTS.items():
        path = ROOT / "docs" / "results" / f"{name}.json"
        if experiment.page != name_of_page or not path.exists():
            continue
        result = json.loads(path.read_text())
        if not experiment.plotted:
            measured = f"`{result['figure']}` of {result['episodes']} greedy episodes"
            told = f"{measured}; {result['machine']}; {result['date']}."
            rows.append(row(result))
            continue
        task = {key: value for key, value in result["config"]["task"].items() if not key.startswith("_")}
        on_the_way = ""
        if early := result.get("early"):
            on_the_way = f" After {early['frames']} frames: {_listed(early)}; required: >= {early['bar']}."
        if sustained := result.get("sustained"):
            on_the_way += f" Lowest of the last {sustained['share']:.0%} of the frames: {_listed(sustained)}; "
            on_the_way += f"required: >= {sustained['bar']}."
        lines += [
            f"### {name.replace('_', ' ')}",
            "",
            f"`{result['figure']}`: **{_by_seed(result)}**; required: {result['bar']}.{on_the_way} "
            f"{result['episodes']} greedy episodes; {result['config']['total_frames']} frames in "
            f"{_span(result['seconds'])} s, beside other jobs; {result['machine']}; "
            f"{result['date']}.",
            "",
            "```",
            result["command"],
            f"task: {json.dumps(task)}",
            "```",
            "",
            f"![{name}]({images}/{name}.png)",
            "",
        ]
    if rows:
        head = ["| command | figures | required | seconds |", "|---|---|---|---|"]
        lines = [*head, *rows, "", told, "", *lines]
    write_between(page, "results", "\n".join(lines))


def _listed(told: dict[str, Any]) -> str:
    return ", ".join(str(figure) for figure in told["figures"])


def _by_seed(result: dict[str, Any]) -> str:
    pairs = zip(result["seeds"], result["figures"], strict=True)
    return ", ".join(f"{figure} (seed {seed})" for seed, figure in pairs)


def row(result: dict[str, Any]) -> str:
    """A result as a row of a table."""
    return f"| `{result['command']}` | {_by_seed(result)} | {result['bar']} | {_span(result['seconds'])} |"


def _span(seconds: list[int]) -> str:
    return str(seconds[0]) if len(seconds) == 1 else f"{min(seconds)} to {max(seconds)}"


def machine() -> str:
    """Processor, threads, Python and torch."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"model name\s*: (.*)", cpuinfo.read_text())
        model = found.group(1) if found else model
    return f"{model}, {torch.get_num_threads()} threads, Python {platform.python_version()}, torch {torch.__version__}"


def plot(name: str, experiment: Experiment, directories: list[Path]) -> None:
    """The greedy returns of every seed over frames, beside the reference."""
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for seed, directory in zip(experiment.seeds, directories, strict=True):
        points = evaluations(directory, experiment.figure).items()
        axis.plot(*zip(*points, strict=True), marker="o", markersize=3, label=f"ctde_kit, seed {seed}")
    if experiment.reference:
        axis.plot(*zip(*experiment.reference, strict=True), "k--", linewidth=1, label=experiment.reference_name)
    for label, value in experiment.horizontals.items():
        axis.axhline(value, color="gray", linewidth=0.8, linestyle=":")
        at = axis.get_yaxis_transform()
        axis.text(0.01, value, label, transform=at, fontsize=8, color="gray", va="bottom")
    axis.set(xlabel="frames", ylabel=experiment.ylabel, title=name.replace("_", " "))
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize=8)
    target = ROOT / "docs" / "images" / f"{name}.png"
    target.parent.mkdir(exist_ok=True)
    figure.savefig(target, dpi=110)


if __name__ == "__main__":
    main()
