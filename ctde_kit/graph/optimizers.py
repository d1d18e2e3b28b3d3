"""A step of one of torch's optimizers, as operations that can be traced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ctde_kit.graph.errors import TraceError

# Without Python numbers of the step count, and without kernels that a compiler does not know.
_TRACEABLE = {"foreach": False, "fused": False, "capturable": True}


def learning_rates(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """A scalar for each group of parameters, which the traced step reads, and ``read_learning_rates`` fills."""
    return [torch.tensor(float(group["lr"]), device=group["params"][0].device) for group in optimizer.param_groups]


def read_learning_rates(optimizer: torch.optim.Optimizer, scalars: Sequence[Tensor]) -> None:
    """Fill ``scalars`` with the present learning rates."""
    for group, scalar in zip(optimizer.param_groups, scalars, strict=True):
        scalar.fill_(group["lr"])


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """What the optimizer keeps from step to step, such as moments; another list after it has loaded a state."""
    return [
        value
        for group in optimizer.param_groups
        for parameter in group["params"]
        for value in optimizer.state.get(parameter, {}).values()
        if isinstance(value, Tensor)
    ]


def traced_step(optimizer: torch.optim.Optimizer, scalars: Sequence[Tensor]) -> None:
    """``optimizer.step()`` with the learning rates in ``scalars``, while a graph is traced.

    Raises:
        TraceError: where the state does not exist yet, since the first step makes it.
    """
    if not optimizer.state:
        raise TraceError("the optimizer has made no step yet")
    saved = [dict(group) for group in optimizer.param_groups]
    for group, scalar in zip(optimizer.param_groups, scalars, strict=True):
        group.update({name: value for name, value in {**_TRACEABLE, "lr": scalar}.items() if name in group})
    try:
        with _says_that_it_compiles():
            optimizer.step()
    finally:
        for group, old in zip(optimizer.param_groups, saved, strict=True):
            group.update(old)


@contextmanager
def _says_that_it_compiles() -> Iterator[None]:
    """Torch's optimizers count their steps in tensors on a CPU only for a compiler."""
    compiler: Any = torch.compiler
    before = compiler._is_compiling_flag
    compiler._is_compiling_flag = True
    try:
        yield
    finally:
        compiler._is_compiling_flag = before
