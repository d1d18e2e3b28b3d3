"""The mode in which a function is traced: it watches each call of torch, and refuses what no graph can do."""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Callable, Hashable
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ctde_kit.graph.draws import DrawSpec, intercept_draw
from ctde_kit.graph.masked import MaskedRows, read_masked, split_mask, write_masked
from ctde_kit.graph.predicates import Predicates, changes_its_input, undo_where_false
from ctde_kit.graph.shortcuts import active_shortcuts
from ctde_kit.graph.torch_calls import Arguments, Options, TorchFunction
from ctde_kit.graph.trace_error import TraceError, calling_frame, site

# With more branches at one line, the function counts as a loop whose end depends on data.
MOST_DECISIONS = 50
# With more calls, tracing alone takes minutes.
MOST_CALLS = 50_000
_ANY, _ALL = (torch.any, Tensor.any), (torch.all, Tensor.all)
_TO_PYTHON = {
    Tensor.item: "item()",
    Tensor.tolist: "tolist()",
    Tensor.__float__: "float()",
    Tensor.__int__: "int()",
    Tensor.__index__: "an index",
    Tensor.numpy: "numpy()",
    Tensor.nonzero: "nonzero()",
    torch.nonzero: "nonzero()",
    torch.argwhere: "argwhere()",
    torch.masked_select: "masked_select()",
    Tensor.masked_select: "masked_select()",
    torch.unique: "unique()",
    Tensor.unique: "unique()",
}


class TracingMode(TorchFunctionMode):
    """Turns masked reads and writes into ``where``, takes random numbers from outside, and decides shortcuts.

    Args:
        is_traced: whether a tensor depends on the graph's inputs.
        draw: gives the numbers of a random call, as an input of the graph.
        real_value: the value of a boolean while tracing.
        identity: a value that is equal for tensors that are computed in the same way.
    """

    def __init__(
        self,
        is_traced: Callable[[Tensor], bool],
        draw: Callable[[DrawSpec], Tensor],
        real_value: Callable[[Tensor], bool],
        identity: Callable[[Tensor], Hashable],
    ):
        super().__init__()
        self.is_traced, self.draw, self.real_value, self.identity = is_traced, draw, real_value, identity
        self._predicates = Predicates()
        self._calls = 0
        self._decisions: dict[tuple[FrameType, int], int] = {}
        self._masks: dict[Hashable, Tensor] = {}
        # Results of any() (True) and all() (False), by id; the tensor is kept so that no other tensor gets its id.
        self._reductions: dict[int, tuple[Tensor, bool]] = {}

    def __torch_function__(
        self, func: TorchFunction, types: object, args: Arguments = (), kwargs: Options | None = None
    ) -> object:
        kwargs = kwargs or {}
        self._calls += 1
        if self._calls > MOST_CALLS:
            raise TraceError(f"makes more than {MOST_CALLS} calls of torch")
        frame = sys._getframe(1)
        conditions = self._predicates.active(frame) if changes_its_input(func) else []
        if not conditions or not isinstance(args[0], Tensor):
            result = self._call(func, types, args, kwargs)
            if args:
                for shortcuts in active_shortcuts():
                    result = shortcuts.correct(func, frame, args[0], result)
            return result
        before = args[0].clone()
        result = self._call(func, types, args, kwargs)
        undo_where_false(conditions, args[0], before)
        return result

    def _call(self, func: TorchFunction, types: object, args: Arguments, kwargs: Options) -> object:
        if any(isinstance(x, MaskedRows) for x in (*args, *kwargs.values())) and func is not Tensor.__setitem__:
            return MaskedRows.__torch_function__(func, types, args, kwargs)
        if func is Tensor.__bool__:
            return self._decide(args[0])
        if func in _TO_PYTHON and self.is_traced(args[0]):
            raise TraceError(f"reads {_TO_PYTHON[func]} of a tensor at {site(calling_frame())}")
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            masked = split_mask(args[1])
            if masked is not None and (self.is_traced(args[0]) or self.is_traced(masked[0])):
                mask = self._masks.setdefault(self.identity(masked[0]), masked[0])
                access = read_masked if func is Tensor.__getitem__ else write_masked
                return access(args[0], mask, masked[1], *args[2:])
            return func(*args, **kwargs)
        drawn = intercept_draw(func, args, kwargs, self.draw)
        if drawn is not None:
            return drawn
        result = func(*args, **kwargs)
        if func in _ANY or func in _ALL:
            self._reductions[id(result)] = (result, func in _ANY)
        return result

    def _decide(self, condition: Tensor) -> bool:
        value = self.real_value(condition)
        if not self.is_traced(condition):
            return value
        frame = calling_frame()
        if _validates_arguments() or _in_assertion(frame):
            return value
        reduction = self._reductions.get(id(condition))
        covering = next((shortcuts for shortcuts in active_shortcuts() if shortcuts.covers(frame)), None)
        if reduction is None or covering is None:
            raise TraceError(f"branches on a tensor at {site(frame)}")
        self._check_loop(frame)
        guarded = covering.guarded(frame, condition)
        if guarded is not None:
            self._predicates.enter(guarded, condition)
        return reduction[1]

    def _check_loop(self, frame: FrameType) -> None:
        """Raise ``TraceError`` for a loop whose end depends on data: while it is traced, it would never end."""
        place = (frame, frame.f_lineno)
        self._decisions[place] = self._decisions.get(place, 0) + 1
        if self._decisions[place] > MOST_DECISIONS:
            raise TraceError(f"loops until a tensor says stop at {site(frame)}")


def _validates_arguments() -> bool:
    """Whether torch.distributions is checking its arguments, which it does by branches instead of assertions."""
    frame: FrameType | None = sys._getframe(1)
    outside = calling_frame()
    while frame is not None and frame is not outside:
        if frame.f_code.co_filename.endswith("torch/distributions/distribution.py"):
            return True
        frame = frame.f_back
    return False


def _in_assertion(frame: FrameType) -> bool:
    return frame.f_lineno in _assertion_lines(frame.f_code.co_filename)


@functools.cache
def _assertion_lines(filename: str) -> frozenset[int]:
    path = Path(filename)
    if not path.is_file():
        return frozenset()
    statements = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Assert)]
    return frozenset(line for node in statements for line in range(node.lineno, (node.end_lineno or node.lineno) + 1))
