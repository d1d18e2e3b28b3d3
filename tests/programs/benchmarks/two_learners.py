"""Two processes of one thread each that make MADDPG's gradient steps side by side, for benchmarks."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from tensordict import TensorDictBase

from ctde_kit.distributed import AverageGradients, free_address
from ctde_kit.recipes import MADDPGConfig, MLPNetwork, ReplayConfig, ValueCriticConfig, VmasTask
from ctde_kit.training import GradientStep

Learner = Callable[..., None]


def figures_of_first(learner: Learner, *arguments: object) -> dict[str, float]:
    """What ``learner(rank, address, *arguments, found)`` has found in ``found[0]``, run in two processes."""
    spawn = multiprocessing.get_context("spawn")
    with spawn.Manager() as manager:
        found, address = manager.dict(), free_address()
        learners = [spawn.Process(target=learner, args=(rank, address, *arguments, found)) for rank in range(2)]
        for process in learners:
            process.start()
        for process in learners:
            process.join()
        return dict(found[0])


def eager_step(
    num_cells: Sequence[int], n_agents: int, batch_size: int, *, share_params: bool
) -> tuple[GradientStep, TensorDictBase]:
    """MADDPG's gradient step on VMAS navigation, and a minibatch."""
    torch.set_num_threads(1)
    network = MLPNetwork(num_cells=list(num_cells), activation="relu", share_params=share_params)
    config = MADDPGConfig(
        task=VmasTask("vmas/navigation", n_envs=60, params={"n_agents": n_agents, "shared_rew": False}),
        actor=network,
        critic=ValueCriticConfig(heads="network", ordering="own_first", network=network),
        replay=ReplayConfig(batch_size=batch_size),
        frames_per_batch=6000,
        compile="off",
    )
    parts = config.build()
    parts.buffer.extend(parts.prepare(next(iter(parts.collector))))
    (minibatch,) = parts.buffer.samples(1)
    return parts.update.update, minibatch


def median_milliseconds(
    average: AverageGradients, cases: Mapping[str, Callable[[], Any]], *, rounds: int, steps: int, warm_up: int = 1
) -> dict[str, float]:
    """Of a step of each case, measured in turn; both processes begin each case together."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for round_ in range(rounds + warm_up):
        for name, step in cases.items():
            average.sum(torch.zeros(1))
            start = time.perf_counter()
            for _ in range(steps):
                step()
            if round_ >= warm_up:
                times[name].append(1000 * (time.perf_counter() - start) / steps)
    return {name: statistics.median(measured) for name, measured in times.items()}
