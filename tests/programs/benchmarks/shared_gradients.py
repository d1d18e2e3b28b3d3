"""What it costs two learners to add up the gradients of every step.

Run ``python -m tests.programs.benchmarks.shared_gradients``.

Two processes of one thread each make MADDPG's eager gradient steps side by side, in turn each for itself and together.
Results go to docs/results/shared_gradients.json and into docs/scale_out.md.
"""

from __future__ import annotations

from typing import Any

from ctde_kit.distributed import AverageGradients
from tests.programs.benchmarks.scale_out_figures import publish
from tests.programs.benchmarks.two_learners import eager_step, figures_of_first, median_milliseconds

BATCHES, ROUNDS, STEPS = (128, 2048), 9, 10


def learner(rank: int, address: str, batch_size: int, found: Any) -> None:
    """Median milliseconds of a step of one learner, alone and shared."""
    step, minibatch = eager_step([256, 256], n_agents=3, batch_size=batch_size, share_params=True)
    average = AverageGradients(address, rank=rank, count=2, timeout=120)

    def make(shares: bool) -> None:
        step.average = average if shares else None
        step(minibatch)

    cases = {"alone": lambda: make(False), "shared": lambda: make(True)}
    found[rank] = median_milliseconds(average, cases, rounds=ROUNDS, steps=STEPS)


def main() -> None:
    """Measure, and write results and page."""
    results: dict[str, dict[str, float]] = {}
    for batch_size in BATCHES:
        results[str(batch_size)] = figures_of_first(learner, batch_size)
        print(batch_size, results[str(batch_size)], flush=True)
    lines = ["| minibatch of each | alone, ms | shared, ms | ratio |", "|---|---|---|---|"]
    lines += [
        f"| {batch} | {row['alone']:.1f} | {row['shared']:.1f} | {row['shared'] / row['alone']:.2f} |"
        for batch, row in results.items()
    ]
    publish("shared_gradients", {"milliseconds_per_step": results}, "\n".join(lines))


if __name__ == "__main__":
    main()
