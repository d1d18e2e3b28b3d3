"""The learning runs whose results the docs report."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Experiment:
    """One command, several seeds.

    Args:
        recipe: module name under ``ctde_kit.recipes``.
        overrides: of the command line, seed apart.
        figure: the metric that is reported, of ``summary.json``.
        bar: what every seed must reach; ``above`` says in which direction.
        reference: ``(frames, return)`` of another library's training episodes, with ``reference_name``.
        horizontals: names and values to draw as lines.
    """

    recipe: str
    overrides: list[str]
    figure: str
    bar: float
    above: bool = True
    seeds: tuple[int, ...] = (0, 1, 2)
    reference_name: str = ""
    reference: list[tuple[int, float]] = field(default_factory=list)
    horizontals: dict[str, float] = field(default_factory=dict)
    ylabel: str = "greedy episode return, mean over agents"


def _points(text: str) -> list[tuple[int, float]]:
    pairs = (item.split() for item in text.split(","))
    return [(int(frames) * 1000, float(value)) for frames, value in pairs]


BENCHMARL = "BenchMARL 1.5.2 MAPPO, training episodes, one seed"

EXPERIMENTS: dict[str, Experiment] = {
    "mappo_navigation": Experiment(
        "mappo",
        ["task=vmas/navigation", "total_frames=200000", "evaluation.episodes=500"],
        "eval/return_mean",
        0.95,
        reference_name=BENCHMARL,
        reference=_points("36 .55,66 .89,96 .81,126 1.01,156 .91,186 .96,246 .94,306 .90,360 .89"),
        horizontals={"random": -0.55},
    ),
    "mappo_balance": Experiment(
        "mappo",
        ["task=vmas/balance", "total_frames=300000", "evaluation.episodes=500"],
        "eval/return_mean",
        45.0,
        reference_name=BENCHMARL,
        reference=_points("36 -2.9,66 -.8,96 10.4,126 22.4,156 25.3,186 32.9,246 40.9,306 44.5,336 46.6,360 45.0"),
        horizontals={"random": -5.8, "VMAS heuristic": 14.3},
    ),
    "mappo_simple_spread": Experiment(
        "mappo",
        [
            "task=pettingzoo/simple_spread",
            "gamma=0.95",
            "frames_per_batch=3000",
            "minibatch_frames=300",
            "actor.num_cells=[128,128]",
            "actor.agent_id=true",
            "critic.network.num_cells=[128,128]",
            "total_frames=600000",
            "evaluation.every_frames=60000",
            "evaluation.episodes=500",
        ],
        "eval/return_sum",
        -40.0,
        horizontals={"random": -79.3, "scripted assignment": -24.5, "MAPPO of EPyMARL, 20M frames": -29.3},
        ylabel="greedy episode return, sum over agents",
    ),
    "mappo_foraging": Experiment(
        "mappo",
        [
            "task=lbf/foraging_8x8_2p_2f_coop",
            "gamma=0.98",
            "minibatch_frames=1000",
            "epochs=5",
            "actor.num_cells=[128,128]",
            "critic.network.num_cells=[128,128]",
            "total_frames=600000",
            "evaluation.every_frames=60000",
            "evaluation.episodes=500",
        ],
        "eval/return_sum",
        0.9,
        horizontals={"random": 0.001, "all food": 1.0},
        ylabel="greedy episode return, sum over agents",
    ),
    "mappo_recall_gru": Experiment(
        "mappo",
        [
            "task=memory/recall",
            "network@actor=gru",
            "network@critic.network=gru",
            "frames_per_batch=1920",
            "minibatch_frames=480",
            "total_frames=60000",
            "evaluation.episodes=500",
        ],
        "eval/return_mean",
        0.95,
        horizontals={"chance": 0.25},
        ylabel="share of right answers",
    ),
    "mappo_recall_mlp": Experiment(
        "mappo",
        [
            "task=memory/recall",
            "frames_per_batch=1920",
            "minibatch_frames=480",
            "total_frames=60000",
            "evaluation.episodes=500",
        ],
        "eval/return_mean",
        0.32,
        above=False,
        horizontals={"chance": 0.25},
        ylabel="share of right answers",
    ),
}
