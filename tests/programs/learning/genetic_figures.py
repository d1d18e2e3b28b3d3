"""What populations with and without exchanges reached: compared, in words, as a plot and as a section of the page."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tests.programs.learning.measure import ROOT
from tests.programs.marked import write_between

PAGE = ROOT / "docs" / "scale_out.md"
# The report says that its method is worse in the first so many steps.
EARLY = 500_000
COLORS = {"genetic": "tab:blue", "independent": "tab:orange"}
# Of Student's distribution, for intervals of 95 % of a mean of so many seeds.
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
# Of one game, by side: the command, and what the population of each seed reached.
Sides = dict[str, Any]


def seeds_of(sides: Sides) -> list[str]:
    """The seeds that both sides have."""
    return sorted(set(sides["genetic"]["seeds"]) & set(sides["independent"]["seeds"]), key=int)


def curves(sides: Sides, side: str, kind: str) -> list[dict[int, float]]:
    """By seed, the best member's return by frames, or the mean of the members'."""
    populations = [sides[side]["seeds"][seed][kind] for seed in seeds_of(sides)]
    return [{int(frames): value for frames, value in one.items()} for one in populations]


def interval(values: list[float]) -> tuple[float, float]:
    """The mean, and half the width of its interval of 95 %; infinite for one value."""
    if len(values) < 2:
        return values[0], float("inf")
    return statistics.mean(values), STUDENT[len(values)] * statistics.stdev(values) / len(values) ** 0.5


def compared(sides: Sides) -> dict[str, Any]:
    """What the report claims, in figures: how often the genetic side is ahead, and by how much, early and later."""
    best, mean_of_members = (_differences(sides, kind) for kind in ("best", "mean"))
    at = sorted(best[0])
    # In shorter runs than the report's, the first half.
    early = [frames for frames in at if frames <= min(EARLY, at[-1] // 2)]
    later = [frames for frames in at if frames not in early]
    return {
        "ahead": sum(statistics.mean(seed[frames] for seed in best) > 0 for frames in at),
        "evaluations": len(at),
        "early_until": early[-1] if early else 0,
        "early": _over(early, best) if early else None,
        "later": _over(later, best),
        "later_mean_of_members": _over(later, mean_of_members),
        "chosen": _summed_up(_of_pairs(sides, lambda one: one["chosen"])),
    }


def _differences(sides: Sides, kind: str) -> list[dict[int, float]]:
    """By seed, how far the genetic side's best member, or the mean of its members, is ahead."""
    pairs = zip(curves(sides, "genetic", kind), curves(sides, "independent", kind), strict=True)
    return [{frames: ours[frames] - theirs[frames] for frames in ours} for ours, theirs in pairs]


def _of_pairs(sides: Sides, figure: Callable[[dict[str, Any]], float]) -> list[float]:
    ours, theirs = sides["genetic"]["seeds"], sides["independent"]["seeds"]
    return [figure(ours[seed]) - figure(theirs[seed]) for seed in seeds_of(sides)]


def _over(points: list[int], differences: list[dict[int, float]]) -> dict[str, Any]:
    return _summed_up([statistics.mean(seed[frames] for frames in points) for seed in differences])


def _summed_up(by_seed: list[float]) -> dict[str, Any]:
    mean, half = interval(by_seed)
    return {"difference": mean, "half_width": half, "by_seed": by_seed}


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


def _shown(figure: dict[str, Any]) -> str:
    if len(figure["by_seed"]) == 1:
        return f"{figure['difference']:.1f} (one seed)"
    by_seed = ", ".join(f"{value:.1f}" for value in figure["by_seed"])
    return f"{figure['difference']:.1f} ± {figure['half_width']:.1f} (by seeds {by_seed})"


def _sign(figure: dict[str, Any]) -> int:
    """Of a difference; 0 where its interval holds 0."""
    if abs(figure["difference"]) <= figure["half_width"]:
        return 0
    return 1 if figure["difference"] > 0 else -1


def _verdict(figure: dict[str, Any]) -> str:
    return "which chance alone may give" if _sign(figure) == 0 else "more than chance alone would give"


def plot(name: str, games: dict[str, Sides], path: Path) -> None:
    """Best and mean of four over frames: the mean over seeds, for the best each seed and an interval of 95 %, too."""
    figure = Figure(figsize=(6.0 * len(games), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, (game, sides) in zip(figure.subplots(1, len(games), squeeze=False)[0], games.items(), strict=True):
        for side, color in COLORS.items():
            _plot_side(axis, sides, side, color)
        values = [value for side in COLORS for seed in curves(sides, side, "best") for value in seed.values()]
        spread = max(values) - min(values)
        # Intervals of few seeds reach far beyond.
        axis.set_ylim(min(values) - 0.1 * spread, max(values) + 0.1 * spread)
        axis.set_title(f"simple_tag ({name}), {game}")
        axis.set_xlabel("frames of each member")
        axis.set_ylabel("greedy return, sum over predators")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(path, dpi=120)


def _plot_side(axis: Axes, sides: Sides, side: str, color: str) -> None:
    for kind, style in (("best", "-"), ("mean", "--")):
        seeds = curves(sides, side, kind)
        at = sorted(seeds[0])
        middle, half = zip(*(interval([seed[frames] for seed in seeds]) for frames in at), strict=True)
        axis.plot(at, middle, style, color=color, label=f"{side}, {kind} of the members")
        if kind == "best" and len(seeds) > 1:
            low, high = ([m + sign * h for m, h in zip(middle, half, strict=True)] for sign in (-1, 1))
            axis.fill_between(at, low, high, color=color, alpha=0.2, linewidth=0)
            for seed in seeds:
                axis.plot(at, [seed[frames] for frames in at], color=color, alpha=0.6, linewidth=0.7)


def write_page(name: str, games: dict[str, Sides]) -> None:
    """The table and the answers between the page's marks."""
    lines = [
        f"| game ({name}) | side | seeds | chosen of the members, by seed | exchanges | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for game, sides in games.items():
        seeds = seeds_of(sides)
        for side in COLORS:
            populations = [sides[side]["seeds"][seed] for seed in seeds]
            chosen = ", ".join(f"{one['chosen']:.1f}" for one in populations)
            seconds = ", ".join(str(one["seconds"]) for one in populations)
            lines.append(
                f"| {game} | {side} | {', '.join(seeds)} | {chosen} | {populations[0]['exchanges']} | {seconds} |"
            )
    lines += ["", *(line for game, sides in games.items() for line in in_words(game, compared(sides)))]
    lines += [f"Intervals of 95 % over seeds. {' '.join(_where(game, sides) for game, sides in games.items())}", ""]
    commands = [sides[side]["command"] for sides in games.values() for side in COLORS]
    lines += ["```", *commands, "```", "", f"![genetic and independent populations, {name}](images/genetic_{name}.png)"]
    write_between(PAGE, f"genetic {name}", "\n".join(lines))


def _where(game: str, sides: Sides) -> str:
    populations = [sides[side]["seeds"][seed] for side in COLORS for seed in seeds_of(sides)]
    frames = max(map(int, populations[0]["best"]))
    machines = " and ".join(sorted({one["machine"] for one in populations}))
    dates = " and ".join(sorted({one["date"] for one in populations}))
    return f"{game.capitalize()}: {frames:,} frames of each member, {machines}, beside other jobs, {dates}."
