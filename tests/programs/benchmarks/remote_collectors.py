"""What a collector in a process of Ray costs beside one in this process.

Run ``python -m tests.programs.benchmarks.remote_collectors``, with the extra ``ray``.

Batches are collected in turn, here and there, with the same policy; the learner does nothing. Results go to
docs/results/remote_collectors.json and into docs/scale_out.md.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Iterator
from typing import Any

from tensordict import TensorDictBase

from ctde_kit.recipes import (
    LbfTask,
    MADDPGConfig,
    MLPNetwork,
    OneProcess,
    PettingZooTask,
    QMIXConfig,
    RayDistribution,
    RecipeConfig,
    VmasTask,
)
from tests.programs.benchmarks.scale_out_figures import publish

WIDE = MLPNetwork(num_cells=[256, 256])
CASES: dict[str, RecipeConfig] = {
    "VMAS navigation, 60 envs, compiled": MADDPGConfig(
        task=VmasTask("vmas/navigation", n_envs=60, params={"n_agents": 3, "shared_rew": False}),
        actor=WIDE,
        frames_per_batch=6000,
        compile="on",
    ),
    "MPE2 simple_spread, 16 envs in 2 workers": MADDPGConfig(
        task=PettingZooTask(
            "pettingzoo/simple_spread",
            env="mpe2/simple_spread_v3",
            continuous_actions=True,
            n_envs=16,
            n_workers=2,
            max_steps=25,
        ),
        actor=WIDE,
        frames_per_batch=1600,
        compile="off",
    ),
    "LBF 8x8-2p-2f-coop, 16 envs in 2 workers": QMIXConfig(
        task=LbfTask("lbf/foraging", env_id="Foraging-8x8-2p-2f-coop-v3", n_envs=16, n_workers=2, max_steps=50),
        actor=WIDE,
        frames_per_batch=1600,
        compile="off",
    ),
}
PLACES = {"here": OneProcess(), "one collector in Ray": RayDistribution()}
ROUNDS = 7


def seconds_per_batch(config: RecipeConfig) -> dict[str, float]:
    """The median of each place, in turn; the first two batches are not counted."""
    parts = {place: dataclasses.replace(config, distributed=where).build() for place, where in PLACES.items()}
    batches: dict[str, Iterator[TensorDictBase]] = {place: iter(one.collector) for place, one in parts.items()}
    times: dict[str, list[float]] = {place: [] for place in PLACES}
    for round_ in range(ROUNDS + 2):
        for place, batch in batches.items():
            start = time.perf_counter()
            next(batch)
            if round_ >= 2:
                times[place].append(time.perf_counter() - start)
    for one in parts.values():
        one.collector.shutdown()
    return {place: statistics.median(measured) for place, measured in times.items()}


def table(results: dict[str, dict[str, Any]]) -> str:
    lines = ["| task | frames per batch | here, ms | in Ray, ms | ratio |", "|---|---|---|---|---|"]
    for case, row in results.items():
        here, there = (1000 * row["seconds"][place] for place in PLACES)
        lines.append(f"| {case} | {row['frames']:,} | {here:.0f} | {there:.0f} | {there / here:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, and write results and page."""
    results: dict[str, dict[str, Any]] = {}
    for case, config in CASES.items():
        results[case] = {"frames": config.frames_per_batch, "seconds": seconds_per_batch(config)}
        print(case, results[case], flush=True)
    publish("remote_collectors", {"cases": results}, table(results))


if __name__ == "__main__":
    main()
