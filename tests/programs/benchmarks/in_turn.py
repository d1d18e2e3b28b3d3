"""Timing of programs that take turns, so that the machine's good and bad times fall on all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctde_kit.training import Parts


def print_iterations(parts: Parts) -> None:
    """Train, and print the seconds of each iteration as ``seconds_of_iterations`` reads them."""
    from ctde_kit.training import iterate

    last = time.perf_counter()
    for _ in iterate(parts):
        now = time.perf_counter()
        print("iteration", now - last, flush=True)
        last = now


def speeds_in_turn(programs: Mapping[str, Callable[[], list[float]]], rounds: int, frames: int) -> dict[str, Any]:
    """Frames per second of each program, by round and over all of them.

    Args:
        programs: by name; each gives the seconds of its iterations.
        rounds: how often each has its turn.
        frames: of an iteration.
    """
    times: dict[str, list[list[float]]] = {program: [] for program in programs}
    for number in range(rounds):
        for program, seconds in programs.items():
            times[program].append(seconds())
            print(f"round {number + 1}, {program}: {statistics.median(times[program][-1]):.3f} s", flush=True)

    def speed(seconds: Iterable[float]) -> int:
        return round(frames / statistics.median(seconds))

    return {
        program: {"frames_per_second": speed(chain.from_iterable(found)), "rounds": [speed(one) for one in found]}
        for program, found in times.items()
    }
