"""Functions of tensors, traced into graphs without branches and compiled: ``trace``, then ``compile_graph``.

Collectors, training and environments import what else they share from this package's files.
"""

from ctde_kit.graph.trace_error import TraceError
from ctde_kit.graph.tracing import Compiled, Graph, compile_graph, trace

__all__ = ["Compiled", "Graph", "TraceError", "compile_graph", "trace"]
