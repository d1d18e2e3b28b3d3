"""Learning beside BenchMARL's, by the clock.

Run ``python -m tests.programs.benchmarks.wall_clock qmix|maddpg``.

``BENCHMARL_PYTHON`` names a python that has BenchMARL 1.5.2. Its one seed and our seeds run in turn on ``navigation``,
one thread each, evaluation of BenchMARL off; ours is counted with its evaluations. Processor seconds are compared, too:
other programs beside them disturb those less. Results go to docs/results/wall_clock_ALGORITHM.json and the recipe's
page, learning curves where ``tests.programs.learning.measure`` puts them. What has ended is not run again.
"""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Any

from tests.programs.benchmarks.benchmarl_runs import benchmarl
from tests.programs.benchmarks.training_speed import ROOT
from tests.programs.learning.experiments import EXPERIMENTS
from tests.programs.learning.measure import processor_seconds, run_experiment
from tests.programs.marked import write_between

ITERATIONS, FRAMES = 40, 6_000
EXPERIMENT = {"qmix": "qmix_navigation", "maddpg": "maddpg_navigation"}


def of_benchmarl(algorithm: str) -> dict[str, Any]:
    """Its seconds, and the rows that ``benchmarl_worker`` prints."""
    kept = ROOT / "runs" / "experiments" / f"benchmarl_{algorithm}.json"
    if kept.exists():
        return json.loads(kept.read_text())
    before = processor_seconds()
    rows, seconds = benchmarl(algorithm, "navigation", iterations=ITERATIONS, gamma=0.9)
    result = {
        "frames": ITERATIONS * FRAMES,
        "seconds": round(seconds),
        "processor_seconds": round(processor_seconds() - before),
        "rows": rows,
    }
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(result))
    return result


def main() -> None:
    """Run both and keep how long they took."""
    os.environ["OMP_NUM_THREADS"] = "1"
    (algorithm,) = sys.argv[1:]
    name = EXPERIMENT[algorithm]
    theirs = of_benchmarl(algorithm)
    print("BenchMARL", theirs["seconds"], "s", theirs["rows"][-1], flush=True)
    ours = run_experiment(name, EXPERIMENTS[name], ROOT / "runs" / "experiments")
    result = {
        "benchmarl": theirs,
        "ours": {
            key: ours[key] for key in ("command", "seconds", "processor_seconds", "figures", "seeds", "machine", "date")
        },
        "ratios_a_frame": {
            clock: round(theirs[clock] / theirs["frames"] / (max(ours[clock]) / ours["config"]["total_frames"]), 2)
            for clock in ("seconds", "processor_seconds")
        },
    }
    target = ROOT / "docs" / "results" / f"wall_clock_{algorithm}.json"
    target.write_text(json.dumps(result, indent=1) + "\n")
    write_page(algorithm, result)
    print(result["ours"], result["ratios_a_frame"])


def write_page(algorithm: str, result: dict[str, Any]) -> None:
    """Both programs' times, between the marks of the recipe's page."""
    theirs, ours = result["benchmarl"], result["ours"]
    lines = ["| | frames | seconds | processor seconds | return |", "|---|---|---|---|---|"]
    lines.append(
        f"| BenchMARL 1.5.2, seed 0 | {theirs['frames']:,} | {theirs['seconds']} | {theirs['processor_seconds']} | "
        f"{theirs['rows'][-1]['return']:.2f}, of its last training episodes |"
    )
    frames = re.search(r"total_frames=(\d+)", ours["command"])
    assert frames is not None
    shown = zip(ours["seeds"], ours["seconds"], ours["processor_seconds"], ours["figures"], strict=True)
    for seed, seconds, used, figure in shown:
        lines.append(f"| ctde_kit, seed {seed} | {int(frames[1]):,} | {seconds} | {used} | {figure}, greedy |")
    ratios = result["ratios_a_frame"]
    told = f"A frame costs BenchMARL {ratios['seconds']} times the seconds and {ratios['processor_seconds']} times the"
    lines += [
        "",
        f"{told} processor seconds of our slowest seed. {ours['machine']}, beside other jobs; {ours['date']}.",
    ]
    write_between(ROOT / "docs" / "recipes" / f"{algorithm}.md", "wall clock", "\n".join(lines))


if __name__ == "__main__":
    main()
