"""Finding state that a graph would hold as a constant."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import nn

from ctde_kit.graph.trace_error import TraceError


def check_python_state(modules: Iterable[nn.Module], function: Callable[[], object]) -> None:
    """Call ``function``, and see that it leaves the modules' numbers, flags and strings as they are.

    Raises:
        TraceError: where an attribute changes; the message names it.
    """
    modules = list(modules)
    before = [_values(module) for module in modules]
    function()
    for module, values in zip(modules, before, strict=True):
        for name, value in _values(module).items():
            if name not in values or value != values[name]:
                raise TraceError(f"{type(module).__name__} keeps changing {name} in Python")


def _values(module: nn.Module) -> dict[str, bool | int | float | str]:
    return {name: value for name, value in vars(module).items() if isinstance(value, bool | int | float | str)}
