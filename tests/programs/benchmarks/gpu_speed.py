"""Time MAPPO on ``navigation`` on a GPU, from hundreds to tens of thousands of environments.

Run ``python -m tests.programs.benchmarks.gpu_speed``, or with ``--device cpu --n_envs 60`` to try it without one.

Frames per second of whole iterations of 10 steps: rollout and update compiled (with CUDA graphs), and both eager, which
is how VMAS steps by itself. Ten epochs of 15 minibatches; networks of two layers of 256. The programs run in turn,
each in a process of its own; the first two iterations, in which it compiles, are left out. Results go to
docs/results/gpu_speed.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import Any

from tests.programs.benchmarks.training_speed import ROOT

RESULTS = ROOT / "docs" / "results" / "gpu_speed.json"
STEPS, ITERATIONS, ROUNDS = 10, 6, 2
N_ENVS = (600, 6_000, 60_000)


def train(n_envs: int, compile: str, device: str) -> None:
    """Print the seconds of each iteration."""
    import torch

    from ctde_kit.recipes import LoggerConfig, MAPPOConfig, VmasTask, iterate

    frames = n_envs * STEPS
    config = MAPPOConfig(
        task=VmasTask("vmas/navigation", n_envs=n_envs, params={"n_agents": 3, "shared_rew": False}),
        frames_per_batch=frames,
        minibatch_frames=frames // 15,
        total_frames=frames * ITERATIONS,
        logger=LoggerConfig(),
        device=device,
        compile=compile,
    )
    last = time.perf_counter()
    for _ in iterate(config.build()):
        if device == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        print("iteration", now - last, flush=True)
        last = now


def seconds(n_envs: int, compile: str, device: str) -> list[float]:
    """Of the iterations after the first two, in a process of its own."""
    command = [sys.executable, "-m", __spec__.name, "--train", compile, "--n_envs", str(n_envs), "--device", device]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    found = [float(line.split()[1]) for line in run.stdout.splitlines() if line.startswith("iteration ")]
    if len(found) < ITERATIONS:
        raise RuntimeError(run.stderr[-2000:])
    return found[2:]


def main() -> None:
    """Time one program (``--train``), or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n_envs", type=int, nargs="+", default=N_ENVS)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--train", choices=("on", "off"))
    options = parser.parse_args()
    if options.train is not None:
        train(options.n_envs[0], options.train, options.device)
        return
    rows: list[dict[str, Any]] = []
    for n_envs in options.n_envs:
        times: dict[str, list[float]] = {"on": [], "off": []}
        for _ in range(ROUNDS):
            for compile in times:
                times[compile] += seconds(n_envs, compile, options.device)
        speed = {compile: round(n_envs * STEPS / statistics.median(found)) for compile, found in times.items()}
        rows.append({"n_envs": n_envs, "compiled": speed["on"], "eager": speed["off"]})
        print(rows[-1], flush=True)
    if options.device == "cuda":
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
