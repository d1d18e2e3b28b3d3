"""Whether compiled runs learn what plain runs learn.

Run ``python -m tests.programs.learning.compile_agreement``.

MAPPO on VMAS navigation, fifty seeds each way, in turn, the final greedy policy on fresh evaluation seeds. Writes
docs/results/compile_agreement.json after each seed: every figure, and the bootstrap interval of the difference of the
means. Seeds that were measured with this command stay: a program that was stopped goes on.
"""

from __future__ import annotations

import datetime
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from tests.programs.learning.measure import ROOT, machine
from tests.recipes.command_line import command

RESULTS = ROOT / "docs" / "results" / "compile_agreement.json"
OPTIONS = [
    "task=vmas/navigation",
    "total_frames=102000",
    "evaluation.episodes=500",
    "evaluation.every_frames=102000",
    "device=cpu",
    "threads=1",
]
SEEDS = 50


def final_return(compile: str, seed: int) -> dict[str, float]:
    """The greedy return and the seconds of one run of the command line."""
    with tempfile.TemporaryDirectory() as directory:
        options = [*OPTIONS, f"compile={compile}", f"seed={seed}", f"hydra.run.dir={directory}/run"]
        subprocess.run(command("mappo", *options), check=True, stdout=subprocess.DEVNULL)
        summary = json.loads((Path(directory) / "run" / "summary.json").read_text())
    return {"return": summary["eval/return_mean"], "seconds": summary["seconds"]}


def bootstrap_interval(first: list[float], second: list[float], samples: int = 10_000) -> tuple[float, float]:
    """The 95 % interval of mean(first) - mean(second), seeds drawn with replacement."""
    generator = np.random.default_rng(0)
    means = [generator.choice(x, (samples, len(x))).mean(1) for x in (first, second)]
    low, high = np.quantile(means[0] - means[1], [0.025, 0.975])
    return float(low), float(high)


def measured() -> dict[str, list[dict[str, float]]]:
    """The runs of this command that are on file, as many each way."""
    saved = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if saved.get("command") != title():
        return {"on": [], "off": []}
    pairs = min(map(len, saved["runs"].values()))
    return {compile: runs[:pairs] for compile, runs in saved["runs"].items()}


def title() -> str:
    """The command of a run, its seed and ``compile`` apart."""
    return " ".join(["ctde-mappo", *OPTIONS])


def write(runs: dict[str, list[dict[str, float]]]) -> None:
    """Every figure so far, and the interval of the difference."""
    returns = {compile: [run["return"] for run in found] for compile, found in runs.items()}
    result = {
        "command": title(),
        "runs": runs,
        "interval_of_the_difference": bootstrap_interval(returns["on"], returns["off"]),
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")


def main() -> None:
    """Run the seeds that are missing both ways, in turn."""
    runs = measured()
    for seed in range(len(runs["on"]), SEEDS):
        for compile, found in runs.items():
            found.append(final_return(compile, seed))
            print(compile, seed, found[-1], flush=True)
        write(runs)


if __name__ == "__main__":
    main()
