"""What it costs two learners to add up the gradients of every step.

Run ``python -m tests.programs.benchmarks.shared_gradients``.

Two processes of one thread each make MADDPG's eager gradient steps side by side, in turn each for itself and together.
Results go to docs/results/shared_gradients.json and into docs/scale_out.md.
"""

from __future__ import annotations

import datetime
import json
import multiprocessing
import statistics
import time
from typing import Any

from tests.programs.benchmarks.training_speed import ROOT
from tests.programs.learning.measure import machine
from tests.programs.marked import write_between

RESULTS, PAGE = ROOT / "docs" / "results" / "shared_gradients.json", ROOT / "docs" / "scale_out.md"
BATCHES, ROUNDS, STEPS = (128, 2048), 9, 10


def learner(rank: int, address: str, batch_size: int, found: Any) -> None:
    """Median milliseconds of a step of one learner, alone and shared."""
    import torch

    from ctde_kit.distributed import AverageGradients
    from ctde_kit.recipes import MADDPGConfig, MLPNetwork, ReplayConfig, ValueCriticConfig, VmasTask

    torch.set_num_threads(1)
    wide = MLPNetwork(num_cells=[256, 256], activation="relu")
    config = MADDPGConfig(
        task=VmasTask("vmas/navigation", n_envs=60, params={"n_agents": 3, "shared_rew": False}),
        actor=wide,
        critic=ValueCriticConfig(heads="network", ordering="own_first", network=wide),
        replay=ReplayConfig(batch_size=batch_size),
        frames_per_batch=6000,
        compile="off",
    )
    parts = config.build()
    parts.buffer.extend(parts.prepare(next(iter(parts.collector))))
    (minibatch,) = parts.buffer.samples(1)
    average = AverageGradients(address, rank=rank, count=2, timeout=120)
    step = parts.update.update
    times: dict[str, list[float]] = {"alone": [], "shared": []}
    for round_ in range(ROUNDS + 1):
        for name, measured in times.items():
            step.average = average if name == "shared" else None
            average.sum(torch.zeros(1))  # both begin together
            start = time.perf_counter()
            for _ in range(STEPS):
                step(minibatch)
            if round_:
                measured.append(1000 * (time.perf_counter() - start) / STEPS)
    found[rank] = {name: statistics.median(measured) for name, measured in times.items()}


def main() -> None:
    """Measure, and write results and page."""
    from ctde_kit.distributed import free_address

    spawn = multiprocessing.get_context("spawn")
    results: dict[str, dict[str, float]] = {}
    for batch_size in BATCHES:
        address = free_address()
        with spawn.Manager() as manager:
            found = manager.dict()
            learners = [spawn.Process(target=learner, args=(rank, address, batch_size, found)) for rank in range(2)]
            for process in learners:
                process.start()
            for process in learners:
                process.join()
            results[str(batch_size)] = dict(found[0])
        print(batch_size, results[str(batch_size)], flush=True)
    told = {"milliseconds_per_step": results, "machine": machine(), "date": datetime.date.today().isoformat()}
    RESULTS.write_text(json.dumps(told, indent=1) + "\n")
    lines = ["| minibatch of each | alone, ms | shared, ms | ratio |", "|---|---|---|---|"]
    lines += [
        f"| {batch} | {row['alone']:.1f} | {row['shared']:.1f} | {row['shared'] / row['alone']:.2f} |"
        for batch, row in results.items()
    ]
    write_between(PAGE, "shared gradients", "\n".join([*lines, "", f"{told['machine']}; {told['date']}."]))


if __name__ == "__main__":
    main()
