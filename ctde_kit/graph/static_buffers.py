"""Compiled functions that keep their buffers: allocating them at each call would take longer than a small graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

Compiled = Callable[[list[Tensor]], Sequence[Tensor]]
NEW, VIEW = "empty_strided_cpu", "reinterpret_tensor"


def with_static_buffers(compiled: Compiled) -> Compiled:
    """``compiled``, inductor's function for a CPU, with static buffers if it allocates them as is expected here."""
    call = getattr(compiled, "current_callable", None)
    namespace = getattr(getattr(call, "__func__", call), "__globals__", {})
    return StaticBuffers(compiled, namespace) if NEW in namespace and VIEW in namespace else compiled


class StaticBuffers:
    """Calls ``compiled``, and gives its new buffers and their views the same memory at each call.

    Inductor's code makes them by two functions, which it calls in the same order each time. Its outputs are copied,
    since the next call overwrites the buffers.

    Args:
        compiled: takes a list of tensors; on a CPU, without branches.
        namespace: the globals of its code; the two functions are all that is used of them.
    """

    def __init__(self, compiled: Compiled, namespace: dict[str, Callable[..., Tensor]]):
        self.compiled, self.namespace = compiled, namespace
        self.new, self.view = namespace[NEW], namespace[VIEW]
        # None where a view is of an input, or of what another library allocated.
        self.buffers: list[Tensor | None] = []
        self._own: set[int] = set()
        self._known = False

    def __call__(self, inputs: list[Tensor]) -> list[Tensor]:
        if self._known:
            functions = self._give_again(iter(self.buffers))
        else:
            self.buffers, self._own = [], set()
            functions = self._first_new, self._first_view
        self.namespace[NEW], self.namespace[VIEW] = functions
        try:
            outputs = [output.clone() for output in self.compiled(inputs)]
        finally:
            self.namespace[NEW], self.namespace[VIEW] = self.new, self.view
        self._known = True
        return outputs

    def _first_new(self, *layout: object) -> Tensor:
        return self._keep(self.new(*layout))

    def _first_view(self, base: Tensor, *layout: object) -> Tensor:
        view = self.view(base, *layout)
        if id(base) in self._own:
            return self._keep(view)
        self.buffers.append(None)
        return view

    def _keep(self, buffer: Tensor) -> Tensor:
        self._own.add(id(buffer))
        self.buffers.append(buffer)
        return buffer

    def _give_again(self, buffers: Iterator[Tensor | None]) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
        real_view = self.view

        def new(*_: object) -> Tensor:
            kept = next(buffers)
            assert kept is not None
            return kept

        def view(base: Tensor, *layout: object) -> Tensor:
            kept = next(buffers)
            return real_view(base, *layout) if kept is None else kept

        return new, view
