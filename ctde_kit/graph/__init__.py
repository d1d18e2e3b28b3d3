"""Functions of tensors as straight graphs, compiled to machine code."""

from ctde_kit.graph.agreement import compile_in_agreement
from ctde_kit.graph.draws import drawing_from
from ctde_kit.graph.optimizers import calls_hooks, learning_rates, optimizer_tensors, read_learning_rates, traced_step
from ctde_kit.graph.packing import Layout, RowLayout
from ctde_kit.graph.shortcuts import PackageShortcuts, Shortcuts, taking_shortcuts
from ctde_kit.graph.toolchain import missing_toolchain, report_fallback, useful_threads
from ctde_kit.graph.trace_error import TraceError
from ctde_kit.graph.tracing import Compiled, Graph, compile_graph, trace

__all__ = [
    "Compiled",
    "Graph",
    "Layout",
    "PackageShortcuts",
    "RowLayout",
    "Shortcuts",
    "TraceError",
    "calls_hooks",
    "compile_graph",
    "compile_in_agreement",
    "drawing_from",
    "learning_rates",
    "missing_toolchain",
    "optimizer_tensors",
    "read_learning_rates",
    "report_fallback",
    "taking_shortcuts",
    "trace",
    "traced_step",
    "useful_threads",
]
