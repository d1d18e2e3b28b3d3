"""Watch resident memory over 10,000 iterations of short rollouts.

Run ``python -m tests.programs.benchmarks.memory``.

Results go to docs/results/memory.json.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

from tests.programs.benchmarks.training_speed import ROOT

RESULTS = ROOT / "docs" / "results" / "memory.json"
N_ENVS, STEPS = 10, 2
SHOWN = (100, 1_000, 2_000, 4_000, 6_000, 8_000, 10_000)


def resident_megabytes() -> float:
    """Of this process, now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def megabytes_over(iterations: int, shown: tuple[int, ...] = SHOWN) -> list[tuple[int, float]]:
    """Megabytes of this process after some of the iterations of a compiled run."""
    from ctde_kit.recipes import LoggerConfig, MAPPOConfig, MLPNetwork, ValueCriticConfig, VmasTask
    from ctde_kit.training import iterate

    torch.set_num_threads(1)
    network = MLPNetwork(num_cells=[16])
    frames = N_ENVS * STEPS
    config = MAPPOConfig(
        task=VmasTask(name="vmas/simple_spread", n_envs=N_ENVS),
        actor=network,
        critic=ValueCriticConfig(network=network),
        logger=LoggerConfig(),
        device="cpu",
        compile="on",
        frames_per_batch=frames,
        minibatch_frames=frames,
        epochs=1,
        total_frames=frames * iterations,
    )
    seen = []
    for n, _ in enumerate(iterate(config.build()), start=1):
        if n in shown:
            seen.append((n, resident_megabytes()))
            print(*seen[-1], flush=True)
    return seen


def main() -> None:
    """Measure as many iterations as the argument says, 10,000 without one."""
    seen = megabytes_over(int(sys.argv[1]) if sys.argv[1:] else SHOWN[-1])
    RESULTS.write_text(json.dumps({"n_envs": N_ENVS, "steps": STEPS, "megabytes": seen}, indent=1) + "\n")


if __name__ == "__main__":
    main()
