"""Trains JaxMARL's IPPO: the program that ``recurrent_speed`` and ``jaxmarl_speed`` start with the Python that has it.

``python jaxmarl_worker.py BASELINES PROGRAM UPDATES N_ENVS STEPS EPOCHS MINIBATCHES``; BASELINES is ``baselines/IPPO``
of JaxMARL's repository, which its wheel lacks, and PROGRAM ``ippo_rnn_mpe`` or ``ippo_ff_mpe``. It imports nothing of
this project, and needs jaxmarl, distrax, wandb, hydra-core and omegaconf. Standard output has one line, the mean
seconds of an update with its rollout; compiling is not counted.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from pathlib import Path
from typing import Any

import yaml


def main() -> None:
    """Train what the command line says."""
    baselines, program = Path(sys.argv[1]), sys.argv[2]
    updates, n_envs, steps, epochs, minibatches = map(int, sys.argv[3:])
    sys.path.insert(0, str(baselines))
    os.environ |= {"WANDB_MODE": "disabled", "JAX_PLATFORMS": "cpu"}
    # Its threads are as many as the process may use processors.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    jax: Any = importlib.import_module("jax")
    wandb: Any = importlib.import_module("wandb")
    baseline: Any = importlib.import_module(program)

    def ignore(*_: Any, **__: Any) -> None:
        """In place of wandb.log, which would fail without a run."""

    wandb.log = ignore
    config = yaml.safe_load((baselines / "config" / f"{program}.yaml").read_text())
    config |= {"LR": float(config["LR"]), "NUM_ENVS": n_envs, "NUM_STEPS": steps}
    config |= {"UPDATE_EPOCHS": epochs, "NUM_MINIBATCHES": minibatches}
    config |= {"TOTAL_TIMESTEPS": float(n_envs * steps * updates), "ENV_KWARGS": config.get("ENV_KWARGS", {})}
    key = jax.random.PRNGKey(0)
    train = jax.jit(baseline.make_train(config)).lower(key).compile()
    started = time.perf_counter()
    jax.block_until_ready(train(key))
    print("iteration", (time.perf_counter() - started) / updates, flush=True)


if __name__ == "__main__":
    main()
