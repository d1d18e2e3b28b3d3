"""Time MAPPO, nothing compiled, alone and beside a program of two threads, by how OpenMP's threads wait.

Run ``python -m tests.programs.benchmarks.shared_cores`` on an idle machine of two cores; docs/reliability.md has the
table. Each setting is a process of its own; all take turns, an iteration each, so that what else the machine does meets
all of them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

SETTINGS: dict[str, dict[str, str]] = {
    "two threads, as libgomp has it": {},
    "two threads, GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "two threads, GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "two threads, GOMP_SPINCOUNT=100000": {"GOMP_SPINCOUNT": "100000"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
FRAMES = 6_000
CHILD = """
import sys, time
from ctde_kit.recipes import MAPPOConfig, iterate, named_task
parts = MAPPOConfig(task=named_task("vmas/navigation"), total_frames=6_000_000, compile="off").build()
iterations = iterate(parts)
for _ in range(2):
    next(iterations)
print("ready", flush=True)
for _ in sys.stdin:
    begun = time.perf_counter()
    next(iterations)
    print(time.perf_counter() - begun, flush=True)
"""
BESIDE = """
import torch
torch.set_num_threads(2)
x = torch.randn(300, 300)
while True:
    x = torch.tanh(x @ x * 0.01)
"""
OPENMP = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


class Program:
    """A program of Python, in a process of its own."""

    def __init__(self, text: str, settings: dict[str, str]) -> None:
        environment = {name: value for name, value in os.environ.items() if name not in OPENMP}
        self.process = subprocess.Popen(
            [sys.executable, "-c", text],
            env=environment | settings,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def line(self) -> str:
        """What it prints next."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def seconds(self) -> float:
        """Of its next iteration."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.line())

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def measure(rounds: int) -> None:
    """Print a row for each setting: frames per second alone, and beside the other program."""
    programs = {name: Program(CHILD, settings) for name, settings in SETTINGS.items()}
    try:
        for program in programs.values():
            while program.line() != "ready":
                pass
        print("| threads | alone | beside a program of two threads |\n|---|---|---|")
        alone = {name: [] for name in SETTINGS}
        beside = {name: [] for name in SETTINGS}
        for _ in range(rounds):
            for name, program in programs.items():
                alone[name].append(FRAMES / program.seconds())
        other = Program(BESIDE, {})
        time.sleep(5)
        try:
            for _ in range(rounds):
                for name, program in programs.items():
                    beside[name].append(FRAMES / program.seconds())
        finally:
            other.end()
        for name in SETTINGS:
            print(f"| {name} | {_shown(alone[name])} | {_shown(beside[name])} |")
    finally:
        for program in programs.values():
            program.end()


def _shown(frames_per_second: list[float]) -> str:
    low, high = min(frames_per_second), max(frames_per_second)
    return f"{statistics.median(frames_per_second):,.0f} ({low:,.0f} to {high:,.0f})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    measure(parser.parse_args().rounds)
