"""Distributed Genetic MADDPG against as many independent members, in ``simple_tag``.

``python -m tests.programs.learning.genetic vmas|mpe2`` trains four members, which exchange the best one's critics every
5,000 frames or nothing, against a random prey and from scratch. Both sides have the same frames, seeds and selection:
the best of four. It writes docs/results/genetic_NAME.json, docs/images/genetic_NAME.png and a section of
docs/scale_out.md. Runs that have ended are not repeated, and those that were stopped are resumed.
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

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ctde_kit.recipes.wiring.population_directory import PopulationDirectory
from ctde_kit.training import read_metrics
from tests.programs.learning.measure import ROOT, machine
from tests.programs.marked import write_between
from tests.recipes.command_line import command

PAGE = ROOT / "docs" / "scale_out.md"
MEMBERS, EVERY = 4, 5_000
# The report says that its method is worse in the first so many steps.
EARLY = 500_000
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
# Of Student's distribution, for intervals of 95 % of a mean of so many seeds.
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
Curve = dict[int, float]


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


def curves(path: Path) -> dict[str, Curve]:
    """By frames, the best of the members' returns and their mean."""
    rows = [list(read_metrics(path / "members" / str(rank) / "metrics.csv")) for rank in range(MEMBERS)]
    found = [{int(row["frames"]): row[FIGURE] for row in member if FIGURE in row} for member in rows]
    return {
        "best": {frames: max(member[frames] for member in found) for frames in found[0]},
        "mean": {frames: statistics.mean(member[frames] for member in found) for frames in found[0]},
    }


def interval(values: list[float]) -> tuple[float, float]:
    """The mean, and half the width of its interval of 95 %; infinite for one value."""
    if len(values) < 2:
        return values[0], float("inf")
    return statistics.mean(values), STUDENT[len(values)] * statistics.stdev(values) / len(values) ** 0.5


def measure(name: str, game: str, frames: int, seeds: list[int], runs: Path) -> dict[str, Any]:
    """Both sides of one game: curves of each seed, and what the chosen members reach."""
    sides: dict[str, Any] = {}
    for side in SIDES:
        overrides = options(name, game, side, frames)
        paths = [runs / f"{game}_{side}_{frames}".replace(" ", "_") / f"seed_{seed}" for seed in seeds]
        for seed, path in zip(seeds, paths, strict=True):
            train(overrides, seed, path)
        summaries = [json.loads((path / "summary.json").read_text()) for path in paths]
        sides[side] = {
            "command": f"ctde-maddpg {' '.join(overrides)} seed=SEED",
            "chosen": [summary[FIGURE] for summary in summaries],
            "exchanges": [summary["exchanges"] for summary in summaries],
            "seconds": [round(summary["seconds"]) for summary in summaries],
            "curves": [curves(path) for path in paths],
        }
    return {"sides": sides, **compared(sides)}


def compared(sides: dict[str, Any]) -> dict[str, Any]:
    """What the report claims, in figures: how often the genetic side is ahead, and by how much, early and later."""
    best, mean_of_members = (_differences(sides, kind) for kind in ("best", "mean"))
    at = sorted(best[0])
    last = at[-1]
    # In shorter runs than the report's, the first half.
    early = [frames for frames in at if frames <= min(EARLY, last // 2)]
    later = [frames for frames in at if frames not in early]
    means = {frames: statistics.mean(seed[frames] for seed in best) for frames in at}

    def over(points: list[int], differences: list[Curve] = best) -> dict[str, float]:
        mean, half = interval([statistics.mean(seed[frames] for frames in points) for seed in differences])
        return {"difference": mean, "half_width": half}

    chosen = zip(sides["genetic"]["chosen"], sides["independent"]["chosen"], strict=True)
    mean, half = interval([ours - theirs for ours, theirs in chosen])
    return {
        "ahead": sum(value > 0 for value in means.values()),
        "evaluations": len(at),
        "early_until": early[-1] if early else 0,
        "early": over(early) if early else None,
        "later": over(later),
        "later_mean_of_members": over(later, mean_of_members),
        "chosen": {"difference": mean, "half_width": half},
    }


def _differences(sides: dict[str, Any], kind: str) -> list[Curve]:
    """By seed, how far the genetic side's best member, or the mean of its members, is ahead."""
    pairs = zip(sides["genetic"]["curves"], sides["independent"]["curves"], strict=True)
    return [{frames: ours[kind][frames] - theirs[kind][frames] for frames in ours[kind]} for ours, theirs in pairs]


def in_words(game: str, found: dict[str, Any]) -> list[str]:
    """The report's two claims, answered."""
    consistent = found["ahead"] == found["evaluations"] and _sign(found["later"]) > 0
    early = found["early"]
    lines = [
        f"*{game}*: the genetic side's best is higher at {found['ahead']} of {found['evaluations']} evaluations, so it "
        f"is {'consistently higher' if consistent else 'not consistently higher'}. After "
        f"{found['early_until']:,} frames it is ahead by {_shown(found['later'])}, {_verdict(found['later'])}."
    ]
    if early is not None:
        claim = {-1: "worse", 0: "neither worse nor better", 1: "better"}[_sign(early)]
        lines.append(f"In the first {found['early_until']:,} frames it is {claim}: {_shown(early)}.")
    members = found["later_mean_of_members"]
    lines.append(f"The mean of its members is ahead by {_shown(members)} then, {_verdict(members)}.")
    lines.append(f"The members chosen in the end differ by {_shown(found['chosen'])}, {_verdict(found['chosen'])}.")
    return [" ".join(lines), ""]


def _shown(figure: dict[str, float]) -> str:
    half = figure["half_width"]
    return f"{figure['difference']:.1f}" + (" (one seed)" if half == float("inf") else f" ± {half:.1f}")


def _sign(figure: dict[str, float]) -> int:
    """Of a difference; 0 where its interval holds 0."""
    if abs(figure["difference"]) <= figure["half_width"]:
        return 0
    return 1 if figure["difference"] > 0 else -1


def _verdict(figure: dict[str, float]) -> str:
    return "which chance alone may give" if _sign(figure) == 0 else "more than chance alone would give"


def plot(name: str, games: dict[str, Any], path: Path) -> None:
    """Best and mean of four over frames: the mean over seeds, for the best each seed and an interval of 95 %, too."""
    figure = Figure(figsize=(6.0 * len(games), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, (game, found) in zip(figure.subplots(1, len(games), squeeze=False)[0], games.items(), strict=True):
        for side, color in zip(SIDES, ("tab:blue", "tab:orange"), strict=True):
            seeds = found["sides"][side]["curves"]
            for kind, style in (("best", "-"), ("mean", "--")):
                at = sorted(seeds[0][kind])
                middle, half = zip(*(interval([seed[kind][frames] for seed in seeds]) for frames in at), strict=True)
                axis.plot(at, middle, style, color=color, label=f"{side}, {kind} of {MEMBERS}")
                if kind == "best":
                    low, high = ([m + sign * h for m, h in zip(middle, half, strict=True)] for sign in (-1, 1))
                    axis.fill_between(at, low, high, color=color, alpha=0.2, linewidth=0)
                    for seed in seeds:
                        axis.plot(at, [seed[kind][frames] for frames in at], color=color, alpha=0.6, linewidth=0.7)
        values = [
            value for told in found["sides"].values() for seed in told["curves"] for value in seed["best"].values()
        ]
        axis.set_ylim(min(values) - 0.1 * max(values), 1.1 * max(values))  # intervals of few seeds reach far beyond
        axis.set_title(f"simple_tag ({name}), {game}")
        axis.set_xlabel("frames of each member")
        axis.set_ylabel("greedy return, sum over predators")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(path, dpi=120)


def write_page(name: str, result: dict[str, Any]) -> None:
    """The table and the answers between the page's marks."""
    lines = [f"| game ({name}) | side | chosen of {MEMBERS}, by seed | exchanges | seconds |", "|---|---|---|---|---|"]
    for game, found in result["games"].items():
        for side, told in found["sides"].items():
            chosen = ", ".join(f"{value:.1f}" for value in told["chosen"])
            seconds = ", ".join(map(str, told["seconds"]))
            lines.append(f"| {game} | {side} | {chosen} | {told['exchanges'][0]} | {seconds} |")
    lines += ["", *(line for game, found in result["games"].items() for line in in_words(game, found))]
    lines += [
        f"{result['frames']:,} frames of each member, seeds {', '.join(map(str, result['seeds']))}; intervals of 95 % "
        f"over seeds; {result['machine']}, beside other jobs; {result['date']}.",
        "",
        "```",
        *(told["command"] for found in result["games"].values() for told in found["sides"].values()),
        "```",
        "",
        f"![genetic and independent populations, {name}](images/genetic_{name}.png)",
    ]
    write_between(PAGE, f"genetic {name}", "\n".join(lines))


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
    games = {game: measure(arguments.name, game, arguments.frames, arguments.seeds, runs) for game in arguments.games}
    told = {"frames": arguments.frames, "seeds": arguments.seeds, "members": MEMBERS}
    result = {**told, "games": games, "machine": machine(), "date": datetime.date.today().isoformat()}
    for folder in ("results", "images"):
        (arguments.output / folder).mkdir(parents=True, exist_ok=True)
    target = arguments.output / "results" / f"genetic_{arguments.name}.json"
    target.write_text(json.dumps(result, indent=1) + "\n")
    plot(arguments.name, games, arguments.output / "images" / f"genetic_{arguments.name}.png")
    if arguments.output == ROOT / "docs":
        write_page(arguments.name, result)
    for game, found in games.items():
        print("\n".join(in_words(game, found)))


if __name__ == "__main__":
    main()
