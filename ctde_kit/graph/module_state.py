"""State of modules that a graph would hold as a constant, or that making a graph would move on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ctde_kit.graph.trace_error import TraceError

Values = dict[str, bool | int | float | str]


class ModuleState:
    """The numbers, flags, strings and buffers of modules at one moment."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self.modules = list(modules)
        self.values = [_values(module) for module in self.modules]
        self.buffers = [
            {name: buffer.clone() for name, buffer in module.named_buffers(recurse=False)} for module in self.modules
        ]

    def changed(self) -> str | None:
        """What is different now, such as ``"Counter keeps changing calls"``; ``None`` where nothing is."""
        for module, values, buffers in zip(self.modules, self.values, self.buffers, strict=True):
            now = _values(module)
            names = [name for name, value in now.items() if name not in values or not _same(value, values[name])]
            kept = dict(module.named_buffers(recurse=False))
            names += [name for name, buffer in buffers.items() if not torch.equal(buffer, kept[name])]
            if names:
                return f"{type(module).__name__} keeps changing {names[0]}"
        return None

    @torch.no_grad()
    def restore(self) -> None:
        """Put back what was there; flags and strings that are new stay, since they say that something was built."""
        for module, values, buffers in zip(self.modules, self.values, self.buffers, strict=True):
            for name, value in _values(module).items():
                if name in values:
                    setattr(module, name, values[name])
                elif not isinstance(value, bool | str):
                    delattr(module, name)
            for name, buffer in module.named_buffers(recurse=False):
                buffer.copy_(buffers[name])


@contextmanager
def restoring_modules(modules: Iterable[nn.Module]) -> Iterator[None]:
    """The modules are afterwards as they were before."""
    state = ModuleState(modules)
    try:
        yield
    finally:
        state.restore()


def check_module_state(modules: Iterable[nn.Module], function: Callable[[], object]) -> None:
    """Call ``function``, and see that it leaves the modules as they are.

    Raises:
        TraceError: where it changes one; the message names it.
    """
    state = ModuleState(modules)
    function()
    changed = state.changed()
    state.restore()
    if changed is not None:
        raise TraceError(changed)


def _values(module: nn.Module) -> Values:
    return {name: value for name, value in vars(module).items() if isinstance(value, bool | int | float | str)}


def _same(one: object, other: object) -> bool:
    return one == other or (one != one and other != other)  # two NaNs
