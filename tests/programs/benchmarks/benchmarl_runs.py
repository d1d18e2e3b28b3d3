"""Runs of BenchMARL 1.5.2, in a Python environment of its own: it pins an older torchrl.

``BENCHMARL_PYTHON`` names a python that has it; ``nox -s bench`` and ``nox -s peers`` make one.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

WORKER = Path(__file__).with_name("benchmarl_worker.py")


def benchmarl(algorithm: str, task: str, **options: object) -> tuple[list[dict[str, Any]], float]:
    """Train, and return the lines that ``benchmarl_worker`` prints, and the seconds that training took.

    Args:
        algorithm: mappo, qmix, maddpg or masac.
        task: the name of a VMAS scenario.
        options: of ``benchmarl_worker``.

    Raises:
        RuntimeError: with the end of what it wrote to standard error, where it failed.
    """
    given = [f"--{name}={value}" for name, value in options.items()]
    command = [os.environ["BENCHMARL_PYTHON"], "-W", "ignore", str(WORKER), algorithm, task, *given]
    threads = str(options.get("threads", 1))
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    rows = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    if not rows or "total_seconds" not in rows[-1]:
        raise RuntimeError(f"BenchMARL's {algorithm} on {task} failed: {run.stderr[-2000:]}")
    return rows[:-1], rows[-1]["total_seconds"]
