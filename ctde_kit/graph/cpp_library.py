"""Compiles C++ files with inductor's tools, and puts their kernels into graphs."""

from __future__ import annotations

import functools
from ctypes import CDLL
from pathlib import Path

from torch import Tensor, fx

from ctde_kit.graph.toolchain import report_fallback
from ctde_kit.kernels import CPP_KERNELS


@functools.cache
def cpp_library(source: Path) -> CDLL:
    """The functions of a C++ file, compiled for this processor and cached where inductor caches its code."""
    from torch._inductor import config as inductor_config
    from torch._inductor.codecache import CppCodeCache

    # Allow fused multiply-add, which the matrix products of every library use.
    with inductor_config.patch({"cpp.enable_floating_point_contract_flag": "fast"}):
        return CppCodeCache.load(source.read_text())


def use_cpp_kernels(module: fx.GraphModule) -> None:
    """Replace operations on CPU tensors by their C++ kernels.

    An operation whose kernel cannot be compiled stays, and a warning of one line says so.
    """
    from torch._inductor.exc import CppCompileError

    for node in module.graph.nodes:
        kernel = CPP_KERNELS.get(node.target) if node.op == "call_function" else None
        if kernel is None:
            continue
        first: Tensor = node.args[0].meta["val"]
        if first.device.type != "cpu" or first.dtype not in kernel.dtypes:
            continue
        try:
            cpp_library(kernel.source)
        except CppCompileError as error:
            report_fallback(kernel.source.name, str(error).rpartition("Output:")[2])
        else:
            node.target = kernel.operation
    module.recompile()
