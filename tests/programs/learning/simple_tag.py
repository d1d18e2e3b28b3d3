"""Predators and prey, trained against each other, a random prey and a frozen prey, then played against one another.

``python -m tests.programs.learning.simple_tag vmas|pettingzoo`` writes docs/results/simple_tag_NAME.json, the heatmap
docs/images/simple_tag_NAME.png, and the table in docs/competition.md. Runs that ended are not repeated.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.programs.learning.measure import ROOT, machine
from tests.programs.marked import write_between
from tests.recipes.command_line import command

PAGE = ROOT / "docs" / "competition.md"
COMMON = [
    "actor.num_cells=[64,64]",
    "critic.network.num_cells=[64,64]",
    "gamma=0.95",
    "lr=0.001",
    "target.tau=0.01",
    "replay.batch_size=256",
    "replay.capacity=500000",
    "frames_per_batch=3000",
    "evaluation.episodes=500",
]
TASKS = {
    "vmas": ["task=vmas/simple_tag", "updates_per_frame=0.1", "action_regularization=0", *COMMON],
    "pettingzoo": [
        "task=pettingzoo/simple_tag",
        "exploration=gumbel",
        "action_regularization=0.001",
        "updates_per_frame=0.1",
        *COMMON,
    ],
}
RUNS = {"both": [], "hunters_of_random": ["opponents.agent=random"], "hunters_of_frozen": ["opponents.agent={both}"]}
EPISODES = 500


def train(name: str, folder: Path, frames: int) -> dict[str, dict[str, Any]]:
    """The three runs, one after the other; their commands and summaries."""
    runs = {}
    for run, own in RUNS.items():
        directory = folder / run
        overrides = [*TASKS[name], *(option.format(both=folder / "both") for option in own), f"total_frames={frames}"]
        overrides += [f"evaluation.every_frames={max(frames // 5, 1)}", "seed=0"]
        if not (directory / "summary.json").exists():
            shutil.rmtree(directory, ignore_errors=True)
            subprocess.run(command("maddpg", *overrides, f"hydra.run.dir={directory}"), check=True)
        shown = [option.replace(f"{folder}/", "runs/") for option in overrides]
        summary = json.loads((directory / "summary.json").read_text())
        runs[run] = {"command": f"ctde-maddpg {' '.join(shown)} hydra.run.dir=runs/{run}", "summary": summary}
    return runs


def play(name: str, folder: Path) -> dict[str, Any]:
    """Every predator against every prey, greedy."""
    table = folder / "table"
    shutil.rmtree(table, ignore_errors=True)
    predators = ",".join([*(str(folder / run) for run in RUNS), "greedy_chase", "random"])
    sides = [f"adversary=[{predators}]", f"agent=[{folder / 'both'},random]"]
    subprocess.run(command("cross-play", *sides, f"episodes={EPISODES}", f"hydra.run.dir={table}"), check=True)
    shutil.copy(table / "cross_play.png", ROOT / "docs" / "images" / f"simple_tag_{name}.png")
    return json.loads((table / "cross_play.json").read_text())


def write_page(name: str, result: dict[str, Any]) -> None:
    """The table of returns between the page's marks."""
    pairings = result["cross_play"]["pairings"]
    prey = list(dict.fromkeys(pairing["agent"] for pairing in pairings))
    lines = ["| predators | " + " | ".join(f"prey `{label}`" for label in prey) + " |", "|---|" + "---|" * len(prey)]
    for predator in dict.fromkeys(pairing["adversary"] for pairing in pairings):
        row = [pairing for pairing in pairings if pairing["adversary"] == predator]
        sums = {p["agent"]: (p["adversary/return_sum"], p["adversary/return_sum_std"], p["episodes"]) for p in row}
        cells = [f"{sums[label][0]:.1f} ({sums[label][1] / sums[label][2] ** 0.5:.1f})" for label in prey]
        lines.append(f"| `{predator}` | " + " | ".join(cells) + " |")
    seconds = {run: round(told["summary"]["seconds"]) for run, told in result["runs"].items()}
    lines += ["", f"{result['machine']}, beside other jobs; {result['date']}; seconds per run: {seconds}.", "", "```"]
    lines += [told["command"] for told in result["runs"].values()]
    lines += ["```", "", f"![cross-play, {name}](images/simple_tag_{name}.png)", ""]
    write_between(PAGE, f"simple_tag {name}", "\n".join(lines))


def main() -> None:
    """Train, play, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=TASKS)
    parser.add_argument("--frames", type=int, default=300_000, help="of each run")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "experiments", help="where the runs go")
    arguments = parser.parse_args()
    folder = (arguments.runs / f"simple_tag_{arguments.name}").resolve()
    runs = train(arguments.name, folder, arguments.frames)
    table = play(arguments.name, folder)
    result = {"runs": runs, "cross_play": table, "machine": machine(), "date": datetime.date.today().isoformat()}
    target = ROOT / "docs" / "results" / f"simple_tag_{arguments.name}.json"
    text = json.dumps(result, indent=1).replace(f"{folder}/", "runs/")
    target.write_text(text + "\n")
    write_page(arguments.name, json.loads(text))


if __name__ == "__main__":
    main()
