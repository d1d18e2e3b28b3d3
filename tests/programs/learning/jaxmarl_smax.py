"""JaxMARL's IPPO with a GRU on an SMAX map, for the curve beside ours.

``python jaxmarl_smax.py MAP FRAMES`` with a Python that has jaxmarl, distrax, wandb, hydra-core and omegaconf;
``JAXMARL_BASELINES`` names the folder ``baselines/IPPO`` of JaxMARL's repository, which its wheel lacks. The setting is
its own for SMAX; the learning rate falls to zero over FRAMES. Nothing of this project is imported.

Writes ``docs/results/jaxmarl_smax_MAP.json``: frames and the share of training episodes won, at every update.
"""

from __future__ import annotations

import datetime
import importlib
import importlib.metadata
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import yaml

SEED = 0


def main() -> None:
    """Train what the command line says."""
    map_name, frames = sys.argv[1], int(sys.argv[2])
    baselines = Path(os.environ["JAXMARL_BASELINES"])
    sys.path.insert(0, str(baselines))
    os.environ |= {"WANDB_MODE": "disabled", "JAX_PLATFORMS": "cpu"}
    jax: Any = importlib.import_module("jax")
    wandb: Any = importlib.import_module("wandb")
    baseline: Any = importlib.import_module("ippo_rnn_smax")
    curve: list[tuple[int, float]] = []

    def note(metrics: dict[str, Any]) -> None:
        """In place of wandb.log: keep the share of battles won."""
        curve.append((int(metrics["env_step"]) + config["NUM_ENVS"] * config["NUM_STEPS"], float(metrics["win_rate"])))
        print(*curve[-1], flush=True)

    wandb.log = note
    config = yaml.safe_load((baselines / "config" / "ippo_rnn_smax.yaml").read_text())
    config |= {"MAP_NAME": map_name, "TOTAL_TIMESTEPS": float(frames), "SEED": SEED}
    started = time.perf_counter()
    jax.block_until_ready(jax.jit(baseline.make_train(config))(jax.random.PRNGKey(SEED)))
    result = {
        "command": f"python jaxmarl_smax.py {map_name} {frames}",
        "config": {key: value for key, value in config.items() if key not in ("ENTITY", "PROJECT", "WANDB_MODE")},
        "frames": [frames for frames, _ in curve],
        "won": [round(won, 4) for _, won in curve],
        "seconds": round(time.perf_counter() - started),
        "versions": {name: importlib.metadata.version(name) for name in ("jaxmarl", "jax")},
        "machine": f"{len(os.sched_getaffinity(0))} threads, Python {platform.python_version()}",
        "date": datetime.date.today().isoformat(),
    }
    target = Path(__file__).parents[3] / "docs" / "results" / f"jaxmarl_smax_{map_name}.json"
    target.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
