"""Whether compiled runs learn what plain runs learn.

Run ``python -m tests.programs.learning.compile_agreement``.

MAPPO on VMAS navigation, ten seeds each way, the final greedy policy on fresh evaluation seeds. Writes
docs/results/compile_agreement.json: every seed, and the bootstrap interval of the difference of the means.
"""

from __future__ import annotations

import datetime
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from tests.programs.learning.measure import machine
from tests.recipes.command_line import command

RESULTS = Path(__file__).parents[3] / "docs" / "results" / "compile_agreement.json"
OPTIONS = [
    "task=vmas/navigation",
    "total_frames=102000",
    "evaluation.episodes=500",
    "evaluation.every_frames=102000",
    "device=cpu",
]
SEEDS = 10


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


def main() -> None:
    """Run all seeds both ways, in turn."""
    runs: dict[str, list[dict[str, float]]] = {"on": [], "off": []}
    for seed in range(SEEDS):
        for compile, found in runs.items():
            found.append(final_return(compile, seed))
            print(compile, seed, found[-1], flush=True)
    returns = {compile: [run["return"] for run in found] for compile, found in runs.items()}
    interval = bootstrap_interval(returns["on"], returns["off"])
    result = {
        "command": " ".join(["ctde-mappo", *OPTIONS]),
        "runs": runs,
        "interval_of_the_difference": interval,
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(interval)


if __name__ == "__main__":
    main()
