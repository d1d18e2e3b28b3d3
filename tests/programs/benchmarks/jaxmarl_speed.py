"""Time whole iterations with MLPs beside JaxMARL's.

Run ``python -m tests.programs.benchmarks.jaxmarl_speed`` on an idle machine. ``JAXMARL_PYTHON`` names a python that has
JaxMARL, and ``JAXMARL_BASELINES`` the folder ``baselines/IPPO`` of its repository.

``simple_spread``, 60 envs x 100 steps per iteration, 10 epochs x 15 minibatches, two layers of 64 for actor and critic.
IPPO has critics of own observations, choices and episodes of 25 steps as JaxMARL's; VMAS's agents have nine choices and
14 observed numbers where JaxMARL's have five and 18. MAPPO has a critic of all observations, continuous actions and
episodes of 100 steps, as in ``training_speed``.

The programs run in turn, each in its own process, two threads. A figure of ours is the median of all iterations but
each process's first two, which compile; JaxMARL gives the mean of an iteration instead, without compiling. Results go
to docs/results/jaxmarl_speed.json.
"""

from __future__ import annotations

import datetime
import json
import os
import sys
from collections.abc import Callable
from functools import partial

from tests.programs.benchmarks.in_turn import print_iterations, speeds_in_turn
from tests.programs.benchmarks.training_speed import (
    FRAMES,
    ROOT,
    WARMUP,
    seconds_of_iterations,
    seconds_of_jaxmarl,
)
from tests.programs.learning.measure import machine

RESULTS = ROOT / "docs" / "results" / "jaxmarl_speed.json"
ROUNDS, ITERATIONS = 3, 12
N_ENVS, STEPS, EPOCHS, MINIBATCHES = 60, 100, 10, 15


def ippo() -> None:
    """Print the seconds of each iteration of ours."""
    import torch

    from ctde_kit.recipes import LoggerConfig, MAPPOConfig, MLPNetwork, ValueCriticConfig, VmasTask

    torch.set_num_threads(2)
    network = MLPNetwork(num_cells=[64, 64])
    parts = MAPPOConfig(
        algorithm="ippo",
        task=VmasTask(name="vmas/simple_spread", n_envs=N_ENVS, continuous_actions=False, max_steps=25),
        actor=network,
        critic=ValueCriticConfig(network=network, sees="observation"),
        logger=LoggerConfig(),
        total_frames=FRAMES * ITERATIONS,
        frames_per_batch=FRAMES,
        minibatch_frames=FRAMES // MINIBATCHES,
        epochs=EPOCHS,
        device="cpu",
        compile="on",
    ).build()
    print_iterations(parts)


def main() -> None:
    """Run IPPO's iterations (``--ippo``), or compare."""
    if sys.argv[1:] == ["--ippo"]:
        ippo()
        return
    missing = [name for name in ("JAXMARL_PYTHON", "JAXMARL_BASELINES") if name not in os.environ]
    if missing:
        sys.exit(f"{missing[0]} is not set; the first lines of this file say what it names")
    ours = [sys.executable, "-m", "tests.programs.benchmarks.training_speed", "--ours", "mappo", "simple_spread"]
    me = [sys.executable, "-m", "tests.programs.benchmarks.jaxmarl_speed", "--ippo"]
    sizes = [2 * ITERATIONS, N_ENVS, STEPS, EPOCHS, MINIBATCHES]
    timed: dict[str, Callable[[], list[float]]] = {
        "IPPO": lambda: seconds_of_iterations(me)[WARMUP:],
        "MAPPO": lambda: seconds_of_iterations([*ours, "[64,64]", "1", str(ITERATIONS)])[WARMUP:],
        "JaxMARL ippo_ff_mpe": partial(seconds_of_jaxmarl, "ippo_ff_mpe", sizes),
    }
    told = {
        "programs": speeds_in_turn(timed, ROUNDS, FRAMES),
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
    }
    RESULTS.write_text(json.dumps({"mlp": told}, indent=1) + "\n")


if __name__ == "__main__":
    main()
