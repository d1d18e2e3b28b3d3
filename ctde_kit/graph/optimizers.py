"""A step of one of torch's optimizers, as operations that can be traced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from ctde_kit.graph.replaced import replaced
from ctde_kit.graph.trace_error import TraceError

# The step count is a tensor instead of a Python number, and no kernel is one that a compiler does not know.
_TRACEABLE = {"foreach": False, "fused": False, "capturable": True}
# Traced, Adam divides by the learning rate: at 0 a weight without a gradient would become nan.
_SMALLEST = 1e-30


def learning_rates(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """A float64 scalar for each group of parameters; the traced step reads it, ``read_learning_rates`` fills it."""
    return [
        torch.tensor(float(group["lr"]), dtype=torch.float64, device=group["params"][0].device)
        for group in optimizer.param_groups
    ]


def read_learning_rates(optimizer: torch.optim.Optimizer, scalars: Sequence[Tensor]) -> None:
    """Fill ``scalars`` with the current learning rates."""
    for group, scalar in zip(optimizer.param_groups, scalars, strict=True):
        scalar.fill_(max(float(group["lr"]), _SMALLEST))


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """The tensors that the optimizer keeps from step to step, such as moments; loading a state replaces them."""
    return [value for state in _states(optimizer) for value in state.values() if isinstance(value, Tensor)]


def calls_hooks(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimizer calls registered functions before or after its step."""
    return any(getattr(optimizer, f"_optimizer_step_{when}_hooks", None) for when in ("pre", "post"))


def traced_step(optimizer: torch.optim.Optimizer, scalars: Sequence[Tensor]) -> None:
    """``optimizer.step()`` with the learning rates in ``scalars``, while a graph is traced.

    Raises:
        TraceError: if the optimizer has no state yet, because the first step makes it; if it counts in Python, or calls
            hooks.
    """
    if not optimizer.state:
        raise TraceError("the optimizer has made no step yet")
    if calls_hooks(optimizer):
        raise TraceError("the optimizer calls hooks")
    groups, states = [dict(group) for group in optimizer.param_groups], [dict(state) for state in _states(optimizer)]
    for group, scalar in zip(optimizer.param_groups, scalars, strict=True):
        group.update({name: value for name, value in {**_TRACEABLE, "lr": scalar}.items() if name in group})
    used = [dict(group) for group in optimizer.param_groups]
    try:
        with _says_that_it_compiles(), _counting_in_float64(optimizer):
            optimizer.step()
        same_groups = all(map(_same_numbers, optimizer.param_groups, used))
        if not same_groups or not all(map(_same_numbers, _states(optimizer), states)):
            raise TraceError("the optimizer counts in Python")
    finally:
        for group, old in zip(optimizer.param_groups, groups, strict=True):
            group.update(old)
        for state, old in zip(_states(optimizer), states, strict=True):
            state.update(old)


def _states(optimizer: torch.optim.Optimizer) -> list[dict[str, object]]:
    every = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return [optimizer.state[parameter] for parameter in every if parameter in optimizer.state]


def _same_numbers(found: dict[str, object], expected: dict[str, object]) -> bool:
    """Whether all options but parameters and tensors are equal."""
    return all(
        found[name] == value
        for name, value in expected.items()
        if name != "params" and not isinstance(value, Tensor) and not isinstance(found[name], Tensor)
    )


@contextmanager
def _counting_in_float64(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Inside the block, step counts are float64, as precise as Python's; with float32, RAdam keeps three digits."""
    counts = [(state, step) for state in _states(optimizer) if isinstance(step := state.get("step"), Tensor)]
    for state, count in counts:
        state["step"] = count.double()
    try:
        yield
    finally:
        for state, count in counts:
            counted = state["step"]
            assert isinstance(counted, Tensor)
            count.copy_(counted)
            state["step"] = count


@contextmanager
def _says_that_it_compiles() -> Iterator[None]:
    """Inside the block, torch believes that it compiles: only then do its optimizers count steps in CPU tensors."""
    with replaced(torch.compiler, "_is_compiling_flag", True):
        yield
