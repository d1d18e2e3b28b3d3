"""Time compiling of a first and of a second run.

Run ``python -m tests.programs.benchmarks.compile_time``.

Each run is a process; the first finds an empty cache. Results go to docs/results/compile_time.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.programs.benchmarks.training_speed import CASES, ROOT

RESULTS = ROOT / "docs" / "results" / "compile_time.json"
TASKS = ("navigation", "balance")


def measure(task: str) -> dict[str, float]:
    """Seconds of the first rollout and of the first gradient step, less those of the second ones."""
    import torch

    from ctde_kit.recipes import LoggerConfig, MAPPOConfig, MLPNetwork, ValueCriticConfig, VmasTask

    torch.set_num_threads(2)
    cells, arguments = CASES[task]
    network = MLPNetwork(num_cells=cells)
    config = MAPPOConfig(
        task=VmasTask(name=f"vmas/{task}", params=arguments),
        actor=network,
        critic=ValueCriticConfig(network=network),
        logger=LoggerConfig(),
        device="cpu",
        compile="on",
    )
    parts = config.build()
    batches = iter(parts.collector)
    rollouts: list[float] = []
    updates: list[float] = []

    def timed(times: list[float], function: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - started)
        return result

    timed(rollouts, lambda: next(batches))
    batch = timed(rollouts, lambda: next(batches))
    parts.buffer.extend(parts.prepare(batch))
    metrics = parts.update_schedule(parts.buffer, lambda minibatch: timed(updates, lambda: parts.update(minibatch)))
    for _ in zip(range(2), metrics, strict=False):
        pass
    return {"rollout_seconds": rollouts[0] - rollouts[1], "update_seconds": updates[0] - updates[1]}


def _run(task: str, cache: str) -> dict[str, float]:
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache, "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-W", "ignore", "-m", "tests.programs.benchmarks.compile_time", "--measure", task]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=True)
    return json.loads(run.stdout.splitlines()[-1])


def main() -> None:
    """Measure one run (``--measure TASK``), or a first and a second one of each task."""
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(sys.argv[2])))
        return
    rows: list[dict[str, Any]] = []
    for task in TASKS:
        with tempfile.TemporaryDirectory() as cache:
            for run in ("first", "second"):
                rows.append({"task": task, "run": run, **_run(task, cache)})
                print(rows[-1], flush=True)
    Path(RESULTS).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
