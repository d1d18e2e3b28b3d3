"""How often the team's exact return falls in an iteration: HAPPO beside MAPPO with unshared policies, on matrix games.

``python -m tests.programs.learning.falling_returns`` writes docs/results/falling_returns.json and the table in
docs/recipes/happo.md. Returns are expectations over the policies' own probabilities, not samples.
"""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch

from ctde_kit.recipes import HAPPOConfig, MAPPOConfig, MLPNetwork, ValueCriticConfig, iterate, named_task
from tests.programs.learning.measure import ROOT, machine
from tests.programs.marked import write_between

PAGE = ROOT / "docs" / "recipes" / "happo.md"
RESULT = ROOT / "docs" / "results" / "falling_returns.json"
GAMES = ("matrix/climbing", "matrix/penalty")
RECIPES = {"happo": HAPPOConfig, "mappo": MAPPOConfig}
SEEDS = (0, 1, 2, 3, 4)
FRAMES = 10_000
# In units of payoff, which goes from -30 to 11 in climbing: less is what sampled advantages cannot tell from nothing.
FALL = 0.01


def config_of(recipe: str, game: str, seed: int, frames: int) -> HAPPOConfig | MAPPOConfig:
    """The two recipes differ in their loss and schedule alone."""
    return RECIPES[recipe](
        task=named_task(game, n_envs=20),
        actor=MLPNetwork(num_cells=[64], share_params=False),
        critic=ValueCriticConfig(heads="one", network=MLPNetwork(num_cells=[64])),
        frames_per_batch=200,
        minibatch_frames=None,
        epochs=5,
        lr=3e-3,
        total_frames=frames,
        seed=seed,
        device="cpu",
        compile="off",
    )


@torch.no_grad()
def exact_return(parts: Any) -> float:
    """The expected payoff of a game of one step."""
    env = parts.collector.env
    probabilities = parts.policy.learners["agents"].get_dist(env.reset()[:1]).probs[0]
    payoff = env.base_env.payoff[0]
    for agent in probabilities:
        payoff = torch.tensordot(agent, payoff, dims=1)
    return payoff.item()


def play(recipe: str, game: str, seed: int, frames: int) -> list[float]:
    """The exact return before the first iteration and after each one."""
    parts = config_of(recipe, game, seed, frames).build()
    return [exact_return(parts), *(exact_return(parts) for _ in iterate(parts))]


def summary(returns: Sequence[float]) -> dict[str, float]:
    """The share of iterations in which the return fell, by how much at most, and the last return."""
    falls = [before - after for before, after in pairwise(returns) if before - after > FALL]
    return {
        "share_fallen": round(len(falls) / (len(returns) - 1), 3),
        "largest_fall": round(max(falls, default=0.0), 3),
        "last_return": round(returns[-1], 2),
    }


def write_page(result: dict[str, Any]) -> None:
    """The table between the page's marks."""
    lines = [
        "| game | recipe | share of iterations in which it fell | largest fall | last return |",
        "|---|---|---|---|---|",
    ]
    for name, seeds in result["runs"].items():
        game, recipe = name.split(" ")
        cells = [
            ", ".join(shown(seed[key]) for seed in seeds)
            for key, shown in (("share_fallen", "{:.0%}".format), ("largest_fall", str), ("last_return", str))
        ]
        lines.append(f"| `{game}` | {recipe.upper()} | {' | '.join(cells)} |")
    lines += ["", f"{result['frames']} frames in batches of 200; {result['machine']}; {result['date']}."]
    write_between(PAGE, "falling returns", "\n".join(lines))


def main() -> None:
    """Train every seed of both recipes on both games."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=FRAMES, help="per run")
    frames = parser.parse_args().frames
    runs = {
        f"{game} {recipe}": [summary(play(recipe, game, seed, frames)) for seed in SEEDS]
        for game in GAMES
        for recipe in RECIPES
    }
    date = datetime.date.today().isoformat()
    result = {"frames": frames, "fall": FALL, "seeds": SEEDS, "machine": machine(), "date": date, "runs": runs}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    write_page(result)
    print(json.dumps(runs, indent=1))


if __name__ == "__main__":
    main()
