"""Compiled functions that give the numbers of the plain one."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ctde_kit.graph.errors import TraceError
from ctde_kit.graph.tracing import Compiled, Graph, compile_graph

TOLERANCE = 1e-4
ALLOWED = 0.01
STEPS_COMPARED = 10


def share_apart(plain: Tensor, compiled: Tensor) -> float:
    """The share of entries that differ by more than ``TOLERANCE (1 + |x|)``."""
    difference = (plain.double() - compiled.double()).abs()
    near = difference <= TOLERANCE * (1 + plain.double().abs())
    same = (plain == compiled) | (plain.isnan() & compiled.isnan())
    return (~(near | same)).double().mean().item()


def compile_in_agreement(
    trace_graph: Callable[[bool], Graph], largest_share: Callable[[Graph, Compiled], float], *, threads: int | None
) -> tuple[Graph, Compiled]:
    """The fast graph where it gives the plain function's numbers, else one that rounds as torch's kernels do.

    Args:
        trace_graph: whether to round exactly -> the graph.
        largest_share: of entries apart in an output, over a few calls.
        threads: of the compiled loops on a CPU; ``None`` for torch's own number.

    Raises:
        TraceError: where neither agrees with the plain function.
    """
    for exact, allowed in ((False, 0.0), (True, ALLOWED)):
        graph = trace_graph(exact)
        compiled = compile_graph(graph, threads=threads)
        if largest_share(graph, compiled) <= allowed:
            return graph, compiled
    raise TraceError("its graph and its plain step give different numbers")
