"""Time whole iterations with GRUs, compiled and eager, beside BenchMARL's and JaxMARL's.

Run ``python -m tests.programs.benchmarks.recurrent_speed`` on an idle machine.

``BENCHMARL_PYTHON`` names a python that has BenchMARL 1.5.2; ``JAXMARL_PYTHON`` one that has JaxMARL, and
``JAXMARL_BASELINES`` the folder ``baselines/IPPO`` of its repository. Without them they are left out.

On-policy: ``simple_spread``, 16 envs x 128 steps per iteration, 4 epochs x 2 minibatches, GRUs of 128 units. MAPPO has
one for actors and one for critics, as BenchMARL. IPPO with ``critic=shared`` has one, as JaxMARL, and as there choices
(of nine actions, there of five) in episodes of 25 steps. Ours have a layer of 128 before the GRU and a linear one
behind it; BenchMARL's have the layer behind, and JaxMARL's one before and one behind for each of both heads.

``qmix``: level-based foraging 8x8, a GRU of 64, 20 updates of 32 sequences of 50 steps per 1,000 frames.

The programs run in turn, each in its own process, two threads. A figure is the median of all iterations but each
process's first three, which compile; JaxMARL gives the mean of an iteration instead, without compiling. Results go to
docs/results/recurrent_speed.json.
"""

from __future__ import annotations

import datetime
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

from tests.programs.benchmarks.benchmarl_runs import benchmarl
from tests.programs.benchmarks.in_turn import speeds_in_turn
from tests.programs.benchmarks.training_speed import ROOT, seconds_of_iterations, seconds_of_jaxmarl
from tests.programs.learning.measure import machine

RESULTS = ROOT / "docs" / "results" / "recurrent_speed.json"
ROUNDS, ITERATIONS, WARMUP = 3, 12, 3
N_ENVS, STEPS = 16, 128
FRAMES = {"mappo": N_ENVS * STEPS, "ippo": N_ENVS * STEPS, "qmix": 1000}


def ours(algorithm: str, compile: bool, part: str) -> None:
    """Print the seconds of each iteration, or with ``part="updates"`` of what follows its rollout."""
    import torch

    from ctde_kit.training import iterate

    torch.set_num_threads(2)
    parts = (_from_replay if algorithm == "qmix" else _on_policy)(algorithm, "on" if compile else "off").build()
    collector: Any = parts.collector
    collect, last = collector.rollout, time.perf_counter()

    def rollout() -> Any:
        nonlocal last
        batch = collect()
        if part == "updates":
            last = time.perf_counter()
        return batch

    collector.rollout = rollout
    for _ in iterate(parts):
        now = time.perf_counter()
        print("iteration", now - last, flush=True)
        last = now


def _on_policy(algorithm: Any, compile: Any) -> Any:
    from ctde_kit.recipes import (
        GRUNetwork,
        LoggerConfig,
        MAPPOConfig,
        SharedCriticConfig,
        ValueCriticConfig,
        VmasTask,
    )

    network, frames = GRUNetwork(hidden_size=128, num_cells=[128]), FRAMES[algorithm]
    return MAPPOConfig(
        algorithm=algorithm,
        task=VmasTask(name="vmas/simple_spread", n_envs=N_ENVS, **_like_jaxmarl(algorithm)),
        actor=network,
        critic=SharedCriticConfig() if algorithm == "ippo" else ValueCriticConfig(network=network),
        logger=LoggerConfig(),
        total_frames=frames * ITERATIONS,
        frames_per_batch=frames,
        minibatch_frames=frames // 2,
        epochs=4,
        device="cpu",
        compile=compile,
    )


def _like_jaxmarl(algorithm: str) -> dict[str, Any]:
    return {"continuous_actions": False, "max_steps": 25} if algorithm == "ippo" else {}


def _from_replay(algorithm: str, compile: Any) -> Any:
    from ctde_kit.recipes import (
        GRUNetwork,
        LbfTask,
        LoggerConfig,
        PolyakTarget,
        QMIXConfig,
        QMixerConfig,
        ReplayConfig,
        SequenceForm,
        TDLambdaReturns,
    )

    frames = FRAMES[algorithm]
    return QMIXConfig(
        task=LbfTask(name="lbf/foraging_8x8_2p_2f_coop", n_envs=20),
        actor=GRUNetwork(hidden_size=64, num_cells=[64]),
        mixer=QMixerConfig(),
        replay=ReplayConfig(form=SequenceForm(length=50), batch_size=32),
        returns=TDLambdaReturns(0.8),
        target=PolyakTarget(),
        logger=LoggerConfig(),
        total_frames=frames * (ITERATIONS + 2),
        frames_per_batch=frames,
        updates_per_frame=0.02,
        device="cpu",
        compile=compile,
    )


def _of_benchmarl() -> list[float]:
    sizes = {"n_envs": N_ENVS, "frames_per_batch": FRAMES["mappo"], "epochs": 4}
    minibatch = {"minibatch_frames": FRAMES["mappo"] // 2, "num_cells": "[128]", "gru": 128}
    rows, _ = benchmarl("mappo", "simple_spread", iterations=ITERATIONS, threads=2, **sizes, **minibatch)
    return [after["seconds"] - before["seconds"] for before, after in pairwise(rows)][WARMUP:]


def _of_us(algorithm: str, compile: str, part: str) -> list[float]:
    me = [sys.executable, "-m", "tests.programs.benchmarks.recurrent_speed", "--ours"]
    return seconds_of_iterations([*me, algorithm, compile, part])[WARMUP:]


def programs(algorithm: str) -> dict[str, Callable[[], list[float]]]:
    """What is timed beside each other; each gives the seconds of its iterations."""
    named = {"compile=on": "1", "compile=off": "0"}
    cases = [("mappo", "MAPPO, two GRUs", "iteration"), ("ippo", "IPPO, one GRU", "iteration")]
    if algorithm == "qmix":
        cases = [("qmix", "QMIX", "iteration"), ("qmix", "QMIX, updates alone", "updates")]
    found: dict[str, Callable[[], list[float]]] = {
        f"{told}, {name}": partial(_of_us, recipe, compile, part)
        for recipe, told, part in cases
        for name, compile in named.items()
    }
    if algorithm == "qmix":
        return found
    if "BENCHMARL_PYTHON" in os.environ:
        found["BenchMARL 1.5.2 MAPPO, two GRUs"] = _of_benchmarl
    if "JAXMARL_PYTHON" in os.environ:
        sizes = [2 * ITERATIONS, N_ENVS, STEPS, 4, 2]
        found["JaxMARL ippo_rnn_mpe, one GRU"] = partial(seconds_of_jaxmarl, "ippo_rnn_mpe", sizes)
    return found


def main() -> None:
    """Run one program's iterations (``--ours``), or compare."""
    if sys.argv[1:2] == ["--ours"]:
        ours(sys.argv[2], sys.argv[3] == "1", sys.argv[4])
        return
    result = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for algorithm in sys.argv[1:] or ["mappo", "qmix"]:
        result[algorithm] = {
            "programs": speeds_in_turn(programs(algorithm), ROUNDS, FRAMES[algorithm]),
            "machine": machine(),
            "date": datetime.date.today().isoformat(),
        }
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
