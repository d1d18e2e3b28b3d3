"""Compiling with a check that the compiled function gives the eager function's numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from ctde_kit.graph.trace_error import TraceError
from ctde_kit.graph.tracing import Compiled, Graph, compile_graph

Result = TypeVar("Result")

# Numbers agree if they differ by at most this times (1 + their size).
TOLERANCE = 1e-4
# Share of entries in which a graph that rounds exactly may still differ.
ALLOWED = 0.01
STEPS_COMPARED = 10


class Restoring(Protocol):
    """Calls a function, and then restores what it changed, including random streams that it owns."""

    def __call__(self, function: Callable[[], Result], /) -> Result:
        """The result of ``function``."""
        ...


def share_apart(eager: Tensor, compiled: Tensor) -> float:
    """The share of entries that differ by more than ``TOLERANCE (1 + |x|)``."""
    difference = (eager.double() - compiled.double()).abs()
    near = difference <= TOLERANCE * (1 + eager.double().abs())
    same = (eager == compiled) | (eager.isnan() & compiled.isnan())
    return (~(near | same)).double().mean().item()


def compile_in_agreement(
    eager: Callable[[list[Tensor]], Sequence[Tensor]],
    example: list[Tensor],
    *,
    trace_graph: Callable[[bool], Graph],
    following: Callable[[list[Tensor], Sequence[Tensor]], list[Tensor]],
    restoring: Restoring,
    threads: int | None,
) -> tuple[Graph, Compiled]:
    """A fast graph, compiled, if it gives the eager function's numbers; else one that rounds as torch's kernels do.

    Graph and function are compared over ``STEPS_COMPARED`` steps, in each of which both get the same inputs and random
    numbers; the next inputs follow from the eager function's outputs. The second graph may differ in a share
    ``ALLOWED`` of the entries.

    Args:
        eager: the function.
        example: its inputs at the first step.
        trace_graph: traces the graph; its argument says whether to round exactly.
        following: gives the next inputs, from a step's inputs and outputs.
        restoring: calls a function, and then restores what it changed, including random streams that it owns.
        threads: how many threads the compiled loops use on a CPU; ``None`` for torch's own number.

    Raises:
        TraceError: if even the graph that rounds exactly gives other numbers.
    """
    for exact, allowed in ((False, 0.0), (True, ALLOWED)):
        graph = trace_graph(exact)
        compiled = compile_graph(graph, threads=threads)
        if _largest_share_apart(eager, graph, compiled, example, following, restoring) <= allowed:
            return graph, compiled
    raise TraceError("its graph and its eager step give different numbers")


def _largest_share_apart(
    eager: Callable[[list[Tensor]], Sequence[Tensor]],
    graph: Graph,
    compiled: Compiled,
    inputs: list[Tensor],
    following: Callable[[list[Tensor], Sequence[Tensor]], list[Tensor]],
    restoring: Restoring,
) -> float:
    worst, devices = 0.0, {x.device for x in inputs if x.device.type == "cuda"}

    def repeatable(function: Callable[[], Sequence[Tensor]]) -> Sequence[Tensor]:
        with torch.random.fork_rng(devices), torch.no_grad():
            return restoring(function)

    for _ in range(STEPS_COMPARED):
        expected = repeatable(lambda inputs=inputs: eager(inputs))
        actual = repeatable(lambda inputs=inputs: compiled([*inputs, *graph.draw()]))
        worst = max(worst, *map(share_apart, expected, actual))
        inputs = following(inputs, expected)
    return worst
