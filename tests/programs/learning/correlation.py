"""Mutual information between agents' actions in a game in which agreement alone pays, and among predators.

``python -m tests.programs.learning.correlation game`` trains every weight and seed, computes the exact information and
payoff of each pair of policies from all latents, and writes docs/results/correlation.json, docs/images/correlation.png
and the table in docs/recipes/masac.md. ``... correlation tag`` trains predators with each weight against one frozen
prey and writes their returns and distances to the prey. Runs that ended are not repeated.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor
from torchrl.envs.utils import ExplorationType, set_exploration_type

from ctde_kit.recipes import (
    LoggerConfig,
    MASACConfig,
    MatrixTask,
    MLPNetwork,
    PolyakTarget,
    ReplayConfig,
    ValueCriticConfig,
    VariationalInformation,
    load,
)
from ctde_kit.recipes.configs.data import to_data
from ctde_kit.training import Parts, iterate
from tests.programs.learning.measure import ROOT, machine
from tests.programs.marked import write_between
from tests.recipes.command_line import command

PAGE = ROOT / "docs" / "recipes" / "masac.md"
SEEDS = (100, 101, 102, 103, 104)
WEIGHTS = (0.0, 1.0, 2.0, 5.0)


def game(weight: float, seed: int) -> MASACConfig:
    """Two agents who observe nothing and get 1 where they choose the same of three, at a temperature that is kept.

    Above 1 / (4 log 2), about 0.361, no common choice of agents who act independently is worth the entropy that it
    costs: with rewards alone, indifference is best. Agents have networks of their own, so that nothing but the latent
    makes them alike. The last layer's large gain lets policies begin with choices that depend on the latent, which the
    bound may keep.
    """
    return MASACConfig(
        task=MatrixTask(name="matrix/agreement", payoff=torch.eye(3).tolist(), n_envs=20),
        actor=MLPNetwork(num_cells=[32], activation="relu", out_gain=12.0, share_params=False),
        critic=ValueCriticConfig(network=MLPNetwork(num_cells=[32], activation="relu")),
        mutual_information=VariationalInformation(weight=weight, latent_dim=1, num_cells=[32], lr=0.01),
        replay=ReplayConfig(capacity=800, batch_size=128),
        target=PolyakTarget(tau=0.05),
        logger=LoggerConfig(),
        other_actions="current",
        fixed_alpha=True,
        alpha_init=0.45,
        lr=0.003,
        critic_lr=0.01,
        max_grad_norm=10.0,
        frames_per_batch=200,
        updates_per_frame=0.25,
        total_frames=8_000,
        compile="off",
        device="cpu",
        seed=seed,
    )


TAG_SEEDS = (0, 1, 2)
TAG_WEIGHTS = (0.0, 0.05)
TAG = [
    "task=vmas/simple_tag",
    "actor.num_cells=[64,64]",
    "critic.network.num_cells=[64,64]",
    "gamma=0.95",
    "lr=0.001",
    "target.tau=0.01",
    "replay.batch_size=256",
    "replay.capacity=500000",
    "frames_per_batch=3000",
    "updates_per_frame=0.05",
    "evaluation.episodes=500",
]
# Where the prey stands in a predator's observation, relative to the predator: after its velocity and position, two
# obstacles and the other two predators.
PREY = slice(12, 14)
EPISODES = 200


def information(joint: Tensor) -> float:
    """The exact mutual information, in nats, of two choices with this joint distribution ``[N, N]``."""
    independent = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    # Rounded probabilities can leave it a little below 0.
    return max(0.0, torch.xlogy(joint, joint / independent).sum().item())


def train_game(weight: float, seed: int) -> dict[str, float]:
    """The figures of ``game``'s policies, trained, and the last bound in the loss."""
    parts = game(weight, seed).build()
    last: dict[str, float] = {}
    for iteration in iterate(parts):
        last = iteration.metrics
    return {**figures_of_game(parts), "bound": last["mutual_information"]}


@torch.no_grad()
def figures_of_game(parts: Parts, n_points: int = 4096) -> dict[str, float]:
    """What both policies do over all latents, from equally probable ones, and at the latent's mean."""
    policy: Any = parts.policy.actors["agents"]  # type: ignore[union-attr]
    latents = torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(n_points) + 0.5) / n_points).unsqueeze(-1)
    root = parts.collector.env.reset()[:1].select(("agents", "observation"))  # type: ignore[attr-defined]
    over_all = policy.get_dist(root.expand(len(latents)).clone().set("latent", latents)).probs.double()
    joint = torch.einsum("zi,zj->ij", over_all[:, 0], over_all[:, 1]) / len(latents)
    first, second = policy.get_dist(root).probs[0].double()  # without a latent, as in execution
    at_mean = torch.outer(first, second)
    return {
        "information": information(joint),
        "agreement": joint.trace().item(),
        "information_at_the_mean": information(at_mean),
        "agreement_at_the_mean": at_mean.trace().item(),
        "greedy_agreement_at_the_mean": float(first.argmax() == second.argmax()),
    }


@torch.no_grad()
def figures_of_tag(directory: Path) -> dict[str, float]:
    """The greedy predators' return, and each one's mean distance to the prey, the nearest predator first."""
    run = load(directory)
    env, policy = run.env, run.policy
    torch.manual_seed(0)
    env.set_seed(1_000_000)
    steps = -(-EPISODES // env.batch_size[0]) * run.config.task.episode_steps
    with set_exploration_type(ExplorationType("deterministic")):
        data = env.rollout(steps, policy, break_when_any_done=False)
    distance = data["adversary", "observation"][..., PREY].norm(dim=-1)
    ranked = distance.sort(-1).values.mean((0, 1))
    each = distance.mean((0, 1))
    summary = json.loads((directory / "summary.json").read_text())
    found = {"return": summary["eval/adversary/return_mean"]}
    found |= {f"distance_of_predator_{i}": each[i].item() for i in range(len(each))}
    places = ("nearest", "second", "third")
    return found | {f"distance_of_the_{place}": ranked[i].item() for i, place in enumerate(places)}


def play_game(folder: Path) -> None:
    """Train what is missing, compute, write."""
    rows: list[dict[str, Any]] = []
    folder.mkdir(parents=True, exist_ok=True)
    for weight in WEIGHTS:
        for seed in SEEDS:
            path = folder / f"weight_{weight}_seed_{seed}.json"
            if not path.exists():
                path.write_text(json.dumps({"weight": weight, "seed": seed, **train_game(weight, seed)}))
            rows.append(json.loads(path.read_text()))
            print(path.read_text(), flush=True)
    config = to_data(game(WEIGHTS[0], 0))
    write_result("correlation", {"rows": rows, "config": config})
    plot_game(rows)
    names = {
        "information": "I(a_1; a_2)",
        "bound": "its bound, in the loss",
        "agreement": "agreement",
        "information_at_the_mean": "I at the mean latent",
        "agreement_at_the_mean": "agreement at the mean latent",
        "greedy_agreement_at_the_mean": "greedy agreement at the mean latent, as in execution",
    }
    write_table("correlation", "Agreement of two agents", names, rows, "correlation")


def train_predators(folder: Path, frames: int) -> None:
    """One prey, trained against predators without mutual information; then predators with each weight against it."""
    folder = folder.resolve()
    common = [*TAG, f"total_frames={frames}", f"evaluation.every_frames={max(frames // 5, 1)}"]
    train(folder / "prey", [*common, "seed=0"])
    rows: list[dict[str, Any]] = []
    for weight in TAG_WEIGHTS:
        for seed in TAG_SEEDS:
            directory = folder / f"weight_{weight}" / f"seed_{seed}"
            own = ["mutual_information=variational", f"mutual_information.weight={weight}", f"seed={seed}"]
            train(directory, [*common, f"opponents.agent={folder / 'prey'}", *own])
            rows.append({"weight": weight, "seed": seed, **figures_of_tag(directory)})
            print(json.dumps(rows[-1]), flush=True)
    told = " ".join(common)
    write_result("correlation_tag", {"rows": rows, "prey": f"ctde-masac {told} seed=0", "predators": f"{told} ..."})
    names = {name: name.replace("_", " ") for name in rows[0] if name not in ("weight", "seed")}
    write_table("tag", "Predators against a frozen prey", names, rows, None)


def train(directory: Path, overrides: Sequence[str]) -> None:
    """``ctde-masac`` with these overrides, unless the run has ended already."""
    if not (directory / "summary.json").exists():
        shutil.rmtree(directory, ignore_errors=True)
        subprocess.run(command("masac", *overrides, f"hydra.run.dir={directory}"), check=True)


def write_result(name: str, result: Mapping[str, Any]) -> None:
    """The result as docs/results/NAME.json."""
    told = {**result, "machine": machine(), "date": datetime.date.today().isoformat()}
    (ROOT / "docs" / "results" / f"{name}.json").write_text(json.dumps(told, indent=1) + "\n")


def write_table(mark: str, title: str, names: Mapping[str, str], rows: list[dict[str, Any]], image: str | None) -> None:
    """A row per weight between the marks of the page: means over seeds, and the lowest and highest seed."""
    lines = [f"### {title}", "", "| weight | " + " | ".join(names.values()) + " |", "|---|" + "---|" * len(names)]
    for weight in dict.fromkeys(row["weight"] for row in rows):
        cells = []
        for name in names:
            values = [row[name] for row in rows if row["weight"] == weight]
            cells.append(f"{mean(values):.2f} ({min(values):.2f} to {max(values):.2f})")
        lines.append(f"| {weight} | " + " | ".join(cells) + " |")
    count = len({row["seed"] for row in rows})
    lines += [
        "",
        f"Means of {count} seeds, lowest and highest in parentheses. {machine()}; {datetime.date.today()}.",
        "",
    ]
    lines += [f"![{title}](../images/{image}.png)", ""] if image else []
    write_between(PAGE, mark, "\n".join(lines))


def plot_game(rows: list[dict[str, Any]]) -> None:
    """Information and agreement over the weight, a point per seed."""
    figure = Figure(figsize=(7.2, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, name, title in zip(
        figure.subplots(1, 2),
        ("information", "agreement_at_the_mean"),
        ("I(a_1; a_2) in nats", "agreement at the mean latent"),
        strict=True,
    ):
        axis.plot([row["weight"] for row in rows], [row[name] for row in rows], "o", markersize=4, alpha=0.6)
        means = [mean(row[name] for row in rows if row["weight"] == weight) for weight in WEIGHTS]
        axis.plot(WEIGHTS, means, "k-", linewidth=1)
        axis.axhline(math.log(3) if name == "information" else 1 / 3, color="gray", linewidth=0.8, linestyle=":")
        axis.set(xlabel="mutual_information.weight", title=title)
        axis.grid(alpha=0.3)
    figure.savefig(ROOT / "docs" / "images" / "correlation.png", dpi=110)


def main() -> None:
    """Run one of both experiments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiment", choices=("game", "tag"))
    parser.add_argument("--frames", type=int, default=300_000, help="of each run of predators")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "experiments", help="where the runs go")
    arguments = parser.parse_args()
    if arguments.experiment == "game":
        play_game(arguments.runs / "correlation")
    else:
        train_predators(arguments.runs / "correlation_tag", arguments.frames)


if __name__ == "__main__":
    main()
