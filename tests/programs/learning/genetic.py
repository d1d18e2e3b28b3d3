"""Distributed Genetic MADDPG against as many independent members, in ``simple_tag``.

``python -m tests.programs.learning.genetic vmas|mpe2`` trains four members, which exchange the best one's critics every
5,000 frames or nothing, against a random prey and from scratch. Both sides have the same frames, seeds and selection:
the best of four. It writes docs/results/genetic_NAME.json, docs/images/genetic_NAME.png and a section of
docs/scale_out.md, anew after each seed. Populations that are in the results, or have ended, are not trained again;
those that were stopped are resumed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import statistics
import subprocess
from pathlib import Path
from typing import Any

from ctde_kit.recipes.wiring.population_directory import PopulationDirectory
from ctde_kit.training import read_metrics
from tests.programs.learning.genetic_figures import compared, in_words, plot, write_page
from tests.programs.learning.measure import ROOT, machine
from tests.recipes.command_line import command

MEMBERS, EVERY = 4, 5_000
FIGURE = "eval/adversary/return_sum"
# The report's settings, as `preset=distributed_maddpg` has them; a batch is one episode of each environment.
SETTING = [
    "actor.num_cells=[64,64]",
    "critic.network.num_cells=[64,64]",
    "exploration.start=0.2",
    "exploration.end=0.2",
    "replay.capacity=500000",
    "replay.batch_size=256",
    "target.tau=0.01",
    "target.every=10",
    "updates_per_frame=0.1",
    "gamma=0.95",
    "lr=0.001",
    "critic_lr=0.0001",
    "frames_per_batch=2500",
    "evaluation.episodes=200",
    "checkpoint.metric=eval/adversary/return_sum",
]
TASKS = {
    "vmas": ["task=vmas/simple_tag", "task.n_envs=50"],
    "mpe2": ["task=pettingzoo/simple_tag", "task.continuous_actions=true", "task.n_envs=10"],
}
GAMES = {"random prey": ["opponents.agent=random"], "from scratch": []}
SIDES = {
    "genetic": ["distributed.sync.what=best_critic", f"distributed.sync.every={EVERY}"],
    "independent": ["distributed.sync.what=none"],
}


def options(name: str, game: str, side: str, frames: int) -> list[str]:
    """Of one population, its seed apart."""
    every = max(frames // 20, 2_500)
    paced = [f"total_frames={frames}", f"evaluation.every_frames={every}", f"checkpoint.every_frames={2 * every}"]
    ray = ["distributed=ray", f"distributed.members={MEMBERS}", *SIDES[side]]
    return [*TASKS[name], *SETTING, *GAMES[game], *paced, *ray]


def train(overrides: list[str], seed: int, path: Path) -> None:
    """One population to its end, from where it was stopped."""
    population = PopulationDirectory(path)
    if population.summary.exists():
        return
    if population.has_version:
        subprocess.run(command("maddpg", f"resume={path}"), check=True)
        return
    shutil.rmtree(path, ignore_errors=True)
    subprocess.run(command("maddpg", *overrides, f"seed={seed}", f"hydra.run.dir={path}"), check=True)


def population(path: Path) -> dict[str, Any]:
    """What a population has reached that has ended: its chosen member's return, and the members' over frames."""
    summary = json.loads((path / "summary.json").read_text())
    rows = [list(read_metrics(path / "members" / str(rank) / "metrics.csv")) for rank in range(MEMBERS)]
    found = [{int(row["frames"]): row[FIGURE] for row in member if FIGURE in row} for member in rows]
    return {
        "chosen": summary[FIGURE],
        "exchanges": summary["exchanges"],
        "seconds": round(summary["seconds"]),
        "best": {str(frames): max(member[frames] for member in found) for frames in found[0]},
        "mean": {str(frames): statistics.mean(member[frames] for member in found) for frames in found[0]},
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
    }


def measure(name: str, frames: int, seeds: list[int], games: list[str], runs: Path, output: Path) -> None:
    """Train what the results do not have yet, one seed after the other, and write the results after each."""
    results = output / "results" / f"genetic_{name}.json"
    found: dict[str, Any] = json.loads(results.read_text()) if results.exists() else {}
    for game in games:
        for seed in seeds:
            for side in SIDES:
                overrides = options(name, game, side, frames)
                sides = found.setdefault(game, {})
                spelled = f"ctde-maddpg {' '.join(overrides)} seed=SEED"
                if side not in sides or sides[side]["command"] != spelled:
                    sides[side] = {"command": spelled, "seeds": {}}
                if str(seed) not in sides[side]["seeds"]:
                    path = runs / f"{game}_{side}_{frames}".replace(" ", "_") / f"seed_{seed}"
                    train(overrides, seed, path)
                    sides[side]["seeds"][str(seed)] = population(path)
            write(name, found, output)


def write(name: str, found: dict[str, Any], output: Path) -> None:
    """Results, image and, where ``output`` is that of the repository, the page's section."""
    for folder in ("results", "images"):
        (output / folder).mkdir(parents=True, exist_ok=True)
    (output / "results" / f"genetic_{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    plot(name, found, output / "images" / f"genetic_{name}.png")
    if output == ROOT / "docs":
        write_page(name, found)


def main() -> None:
    """Train, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=TASKS)
    parser.add_argument("--frames", type=int, default=1_000_000, help="of each member")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--games", nargs="+", choices=GAMES, default=list(GAMES))
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "experiments", help="where the runs go")
    parser.add_argument("--output", type=Path, default=ROOT / "docs", help="where results and images go")
    arguments = parser.parse_args()
    runs = (arguments.runs / f"genetic_{arguments.name}").resolve()
    measure(arguments.name, arguments.frames, arguments.seeds, arguments.games, runs, arguments.output)
    results = json.loads((arguments.output / "results" / f"genetic_{arguments.name}.json").read_text())
    for game, sides in results.items():
        print("\n".join(in_words(game, compared(sides))))


if __name__ == "__main__":
    main()
