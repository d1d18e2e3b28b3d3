"""Measure what the design rests on into docs/results/plain_parts.json.

Run ``python -m tests.programs.benchmarks.plain_parts``.

Every figure is a median within this run; compared things are timed in turn.
"""

from __future__ import annotations

import datetime
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torchrl.envs.libs.vmas import VmasEnv as TorchRLVmasEnv
from torchrl.objectives.value.functional import vec_generalized_advantage_estimate

from ctde_kit.envs.pettingzoo import pettingzoo_factory
from ctde_kit.envs.vmas import VmasEnv
from ctde_kit.envs.workers import worker_env
from ctde_kit.objectives import generalized_advantage_estimate
from tests.programs.learning.measure import machine

RESULTS = Path(__file__).parents[3] / "docs" / "results" / "plain_parts.json"
NAVIGATION = {"n_agents": 3, "shared_rew": False}


def medians(*tasks: Callable[[], object], rounds: int = 15, calls: int = 1) -> list[float]:
    """Median milliseconds of a call of each task, which take turns, some calls each."""
    times: list[list[float]] = [[] for _ in tasks]
    for round_ in range(rounds + 2):
        for task, collected in zip(tasks, times, strict=True):
            start = time.perf_counter()
            for _ in range(calls):
                task()
            if round_ >= 2:
                collected.append(1000 * (time.perf_counter() - start) / calls)
    return [statistics.median(collected) for collected in times]


def gae_rows() -> list[str]:
    """The loop over time against TorchRL's vectorized estimator."""
    shape = (600, 100, 3, 1)
    value, next_value, reward = (torch.randn(shape) for _ in range(3))
    done = torch.rand(shape) < 0.01
    flat = [x.transpose(1, 2).reshape(-1, 100, 1) for x in (value, next_value, reward, done, done)]
    ours, theirs = medians(
        lambda: generalized_advantage_estimate(0.99, 0.95, value, next_value, reward, done, done),
        lambda: vec_generalized_advantage_estimate(0.99, 0.95, *flat),
    )
    return [f"| GAE of [600, 100, 3] | {ours:.1f} ms | TorchRL's vectorized | {theirs:.1f} ms | {theirs / ours:.1f} |"]


def reset_rows() -> list[str]:
    """A partial reset of 1 and of 54 of 60 envs, against TorchRL's."""
    rows = []
    for finished in (1, 6, 54):
        mask = torch.arange(60).reshape(-1, 1) < finished
        envs = [
            VmasEnv("navigation", num_envs=60, scenario_kwargs=NAVIGATION),
            TorchRLVmasEnv("navigation", num_envs=60, **NAVIGATION),
        ]
        carriers = [env.reset().set("_reset", mask) for env in envs]
        ours, theirs = medians(
            lambda envs=envs, carriers=carriers: envs[0].reset(carriers[0].clone()),
            lambda envs=envs, carriers=carriers: envs[1].reset(carriers[1].clone()),
        )
        rows.append(
            f"| navigation, reset of {finished} of 60 envs | {ours:.1f} ms | TorchRL's | {theirs:.1f} ms "
            f"| {theirs / ours:.1f} |"
        )
    return rows


def step_rows() -> list[str]:
    """A random step of 60 envs, against TorchRL's env."""
    rows = []
    for scenario in ("navigation", "balance", "simple_spread"):
        envs = [VmasEnv(scenario, num_envs=60), TorchRLVmasEnv(scenario, num_envs=60)]
        carriers = [env.rand_action(env.reset()) for env in envs]
        ours, theirs = medians(
            lambda envs=envs, carriers=carriers: envs[0].step(carriers[0].clone()),
            lambda envs=envs, carriers=carriers: envs[1].step(carriers[1].clone()),
            rounds=100,
        )
        rows.append(
            f"| {scenario}, step of 60 envs | {ours:.2f} ms | TorchRL's | {theirs:.2f} ms | {theirs / ours:.2f} |"
        )
    return rows


def worker_rows() -> list[str]:
    """MPE2 simple_spread in two processes against one environment in this process."""
    env = worker_env(pettingzoo_factory("mpe2/simple_spread_v3"), n_envs=32, n_workers=2, seed=0)
    raw = pettingzoo_factory("mpe2/simple_spread_v3")()
    raw.reset(seed=0)
    actions = {agent: raw.action_space(agent).sample() for agent in raw.possible_agents}

    def raw_steps() -> None:
        for _ in range(32):
            if not raw.agents:
                raw.reset()
            raw.step(actions)

    carrier = env.rand_action(env.reset())
    ours, theirs = medians(lambda: env.step_and_maybe_reset(carrier.clone()), raw_steps, rounds=100)
    env.close()
    return [
        f"| MPE2 simple_spread, 32 frames | {ours:.1f} ms ({32_000 / ours:.0f} frames/s) | PettingZoo's env in one "
        f"process | {theirs:.1f} ms ({32_000 / theirs:.0f} frames/s) | {theirs / ours:.1f} |"
    ]


def main() -> None:
    """Measure, and keep the rows for the page."""
    rows = [*gae_rows(), *step_rows(), *reset_rows(), *worker_rows()]
    result = {"date": datetime.date.today().isoformat(), "machine": machine(), "rows": rows}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
