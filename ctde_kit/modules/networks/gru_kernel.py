"""The GRU's operations along time in C++, for compiled graphs on a CPU."""

from __future__ import annotations

from ctypes import c_int64, c_void_p
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ctde_kit.kernels import CppKernel
from ctde_kit.modules.networks.gru_sequence import empty_gradients, empty_results

SOURCE = Path(__file__).with_name("gru_sequence.cpp")


@torch.library.custom_op("ctde_kit::gru_sequence_kernel", mutates_args=())
def gru_sequence_kernel(
    gates: Tensor, hidden: Tensor, resets: Tensor, weight: Tensor, bias: Tensor, keep: bool
) -> tuple[Tensor, Tensor]:
    """``gru_sequence`` in C++."""
    results = empty_results(gates, hidden, keep)
    _call("forward", [gates, hidden, resets, weight, bias], results)
    return results


@torch.library.custom_op("ctde_kit::gru_sequence_backward_kernel", mutates_args=())
def gru_sequence_backward_kernel(
    grad: Tensor, hidden: Tensor, resets: Tensor, weight: Tensor, states: Tensor, kept: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """``gru_sequence_backward`` in C++."""
    results = empty_gradients(grad, hidden)
    _call("backward", [grad, hidden, resets, weight, states, kept], results)
    return results


def _call(name: str, inputs: list[Tensor], outputs: tuple[Tensor, ...]) -> None:
    from ctde_kit.graph.cpp_library import (
        cpp_library,
    )  # importing a compiler takes seconds, and most programs need none

    inputs = [x.contiguous() for x in inputs]
    tensors = [c_void_p(x.data_ptr() if x.numel() else None) for x in (*inputs, *outputs)]
    sizes = [*inputs[0].shape[:-1], inputs[1].shape[-1], torch.get_num_threads()]
    getattr(cpp_library(SOURCE), name)(*tensors, *map(c_int64, sizes))


@gru_sequence_kernel.register_fake
def _(gates: Tensor, hidden: Tensor, resets: Tensor, weight: Tensor, bias: Tensor, keep: bool) -> tuple[Tensor, Tensor]:
    return empty_results(gates, hidden, keep)


@gru_sequence_backward_kernel.register_fake
def _(
    grad: Tensor, hidden: Tensor, resets: Tensor, weight: Tensor, states: Tensor, kept: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return empty_gradients(grad, hidden)


def _kernel_of(name: str) -> tuple[Any, CppKernel]:
    by_torch, by_cpp = (getattr(torch.ops.ctde_kit, form).default for form in (name, f"{name}_kernel"))
    return by_torch, CppKernel(by_cpp, SOURCE, (torch.float32,))


KERNELS = dict(map(_kernel_of, ("gru_sequence", "gru_sequence_backward")))
"""The kernels that compiled graphs use instead of ``gru_sequence`` and ``gru_sequence_backward``."""
