"""What came of a population: its best member, a summary, and the curves of all members."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ctde_kit.distributed.meeting_room import best_of
from ctde_kit.files import JsonObject, replacing
from ctde_kit.recipes.configs.recipe import RecipeConfig
from ctde_kit.recipes.wiring.membership import SELECTION
from ctde_kit.recipes.wiring.population_directory import PopulationDirectory
from ctde_kit.training import read_metrics
from ctde_kit.training.reporting import shown_returns
from ctde_kit.training.reporting.figures import new_figure, short_numbers

OF_POLICY = ("eval/", "absolute/")


def conclude(
    config: RecipeConfig, directory: PopulationDirectory, summaries: Mapping[int, JsonObject], seconds: float
) -> JsonObject:
    """Write the summary and the plot of a population that has ended, and print what it reached.

    Args:
        config: of the population.
        directory: of it.
        summaries: of the members by rank.
        seconds: that it took since it was started or resumed.
    """
    summary = summarized(config, summaries, len(directory.exchanges()), seconds)
    with replacing(directory.summary) as file:
        file.write((json.dumps(summary, indent=2) + "\n").encode())
    plots = _plot(config, directory, summary)
    _print(summary, directory, plots)
    return summary


def summarized(config: RecipeConfig, summaries: Mapping[int, JsonObject], exchanges: int, seconds: float) -> JsonObject:
    """The best member's figures, which it is, and the figures of each.

    The best one is chosen by episodes that were the same for all members, ``selection/...``; its figures, ``eval/...``,
    are of other episodes, and so not better than they are by the choice. Where groups compete, each group that learns
    has its own best member.
    """
    ordered = dict(sorted(summaries.items()))
    figures = [name for name in next(iter(ordered.values())) if name.startswith(SELECTION)]
    best = {figure: best_of({rank: of[figure] for rank, of in ordered.items()}) for figure in figures}
    reached: JsonObject = {}
    for figure, rank in best.items():
        group = figure.removeprefix(SELECTION).rpartition("/")[0]
        only = f"{group}/" if len(best) > 1 else ""
        found = {name: value for name, value in ordered[rank].items() if _is_of(name, only)}
        reached |= {name: value for name, value in found.items() if name not in reached}
    frames = {rank: of["frames"] for rank, of in ordered.items()}
    members = [
        {
            "member": rank,
            **{name: of[name] for name in of if name in ("seed", "frames", "ended_by") or name in figures},
            **{name: value for name, value in of.items() if name.startswith(OF_POLICY)},
        }
        for rank, of in ordered.items()
    ]
    return {
        "algorithm": config.algorithm,
        "task": config.task.name,
        "seed": config.seed,
        "frames": max(frames.values()),
        "frames_of_all": sum(frames.values()),
        "seconds": seconds,
        "frames_per_second": sum(of["frames_per_second"] for of in ordered.values()),
        **reached,
        "exchanges": exchanges,
        "best": {figure.removeprefix(SELECTION): rank for figure, rank in best.items()},
        "members": members,
    }


def _is_of(name: str, only: str) -> bool:
    """Whether a summary's entry is a figure of the policy, and of the group ``only`` where there is one."""
    metric = next((name.removeprefix(prefix) for prefix in OF_POLICY if name.startswith(prefix)), None)
    return metric is not None and (not only or "/" not in metric or metric.startswith(only))


def _plot(config: RecipeConfig, directory: PopulationDirectory, summary: JsonObject) -> list[str]:
    """The greedy returns of all members over frames, the best one's thicker."""
    curves = {
        member["member"]: list(read_metrics(directory.member(member["member"]) / "metrics.csv"))
        for member in summary["members"]
    }
    paths: list[str] = []
    best = summary["best"]
    (directory.path / "plots").mkdir(exist_ok=True)
    for name in [name for name in shown_returns(summary) if name.startswith("eval/")]:
        figure = new_figure(7.0, 4.2)
        axis = figure.subplots()
        for rank, rows in curves.items():
            points = [(row["frames"], row[name]) for row in rows if name in row]
            if points:
                is_best = best.get(name.removeprefix("eval/"), next(iter(best.values()))) == rank
                label, width = (f"member {rank}, the best", 2.5) if is_best else (f"member {rank}", 1.0)
                axis.plot(*zip(*points, strict=True), label=label, linewidth=width, marker="o", markersize=3)
        axis.grid(alpha=0.3)
        axis.set_xlabel("frames of each member")
        axis.set_ylabel(name)
        short_numbers(axis)
        axis.legend()
        axis.set_title(f"{config.algorithm} on {config.task.name}, {len(curves)} members, seed {config.seed}")
        path = directory.path / "plots" / f"members_{name.removeprefix('eval/').replace('/', '_')}.png"
        figure.savefig(path)
        paths.append(str(path))
    return paths


def _print(summary: JsonObject, directory: PopulationDirectory, plots: list[str]) -> None:
    shown = shown_returns(summary)
    returns = [f"{name} {summary[name]:.3f}" for name in shown]
    print(f"{summary['algorithm']} on {summary['task']}, seed {summary['seed']}: {', '.join(returns)}")
    for figure, rank in summary["best"].items():
        print(f"  best of {len(summary['members'])} members by {figure}: {directory.member(rank)}")
    for member in summary["members"]:
        told = [f"{name} {member[name]:.3f}" for name in shown if name in member]
        print(f"  member {member['member']}: {', '.join(told)}")
    print(
        f"  after {summary['frames']} frames of each, {summary['exchanges']} exchanges of critics, in "
        f"{summary['seconds']:.0f} s"
    )
    for path in plots:
        print(f"  plot: {path}")
    print(f"  everything: {directory.path}")
