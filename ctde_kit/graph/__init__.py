"""Functions of tensors as straight graphs, compiled to machine code."""

from ctde_kit.graph.agreement import STEPS_COMPARED, compile_in_agreement, share_apart
from ctde_kit.graph.draws import drawing_from
from ctde_kit.graph.errors import TraceError
from ctde_kit.graph.packing import Layout, RowLayout
from ctde_kit.graph.toolchain import missing_toolchain, report_fallback, useful_threads
from ctde_kit.graph.tracing import Compiled, Graph, compile_graph, trace

__all__ = [
    "STEPS_COMPARED",
    "Compiled",
    "Graph",
    "Layout",
    "RowLayout",
    "TraceError",
    "compile_graph",
    "compile_in_agreement",
    "drawing_from",
    "missing_toolchain",
    "report_fallback",
    "share_apart",
    "trace",
    "useful_threads",
]
