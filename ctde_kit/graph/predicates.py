"""``if`` blocks that test the whole batch: a graph runs them and undoes their writes where the test is false."""

from __future__ import annotations

import ast
import functools
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor

from ctde_kit.graph.torch_calls import TorchFunction
from ctde_kit.graph.trace_error import TraceError, site

_IN_PLACE_OPERATORS = ("__iadd__", "__isub__", "__imul__", "__itruediv__", "__iand__", "__ior__", "__setitem__")


class Predicates:
    """The conditions of the ``if`` blocks that a traced function is inside.

    Where a condition is false, what its block writes is undone. Such a condition asks whether something holds for any
    env of the batch. So an env's results depend on the other envs, and the graph keeps this dependence.
    """

    def __init__(self) -> None:
        self._blocks: list[tuple[FrameType, range, Tensor]] = []

    def enter(self, frame: FrameType, condition: Tensor) -> None:
        """Guard the body of the ``if`` whose test ``frame`` evaluates.

        Raises:
            TraceError: if there is no ``if``, it has an ``else``, or its body does more than write into tensors.
        """
        block = _guarded_block(frame.f_code.co_filename, frame.f_lineno)
        if block is None:
            raise TraceError(f"branches on a tensor at {site(frame)}")
        self._blocks = [other for other in self._blocks if other[0] is not frame or other[1] != block]
        self._blocks.append((frame, block, condition))

    def active(self, frame: FrameType | None) -> list[Tensor]:
        """The conditions, true or false, of the ``if`` blocks that ``frame`` or its callers run."""
        conditions = []
        while frame is not None and self._blocks:
            conditions += [c for owner, block, c in self._blocks if owner is frame and frame.f_lineno in block]
            frame = frame.f_back
        return conditions


def changes_its_input(func: TorchFunction) -> bool:
    """Whether a torch function writes into its first argument."""
    name = getattr(func, "__name__", "")
    return name in _IN_PLACE_OPERATORS or (name.endswith("_") and not name.endswith("__"))


def undo_where_false(conditions: list[Tensor], target: Tensor, before: Tensor) -> None:
    """Put ``target`` back to ``before`` unless all conditions hold."""
    for condition in conditions:
        target.copy_(torch.where(condition, target, before))


@functools.cache
def _guarded_block(filename: str, line: int) -> range | None:
    path = Path(filename)
    if not path.is_file():
        return None
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.If) and node.test.lineno <= line <= (node.test.end_lineno or line):
            if node.orelse or not all(map(_only_writes, node.body)):
                return None
            return range(node.body[0].lineno, (node.body[-1].end_lineno or node.body[-1].lineno) + 1)
    return None


def _only_writes(statement: ast.stmt) -> bool:
    """Whether a statement assigns names or items, calls something, or loops or branches over such statements."""
    if isinstance(statement, ast.Assign):
        return all(isinstance(target, (ast.Name, ast.Subscript)) for target in statement.targets)
    if isinstance(statement, ast.For):
        return all(map(_only_writes, statement.body)) and not statement.orelse
    if isinstance(statement, ast.If):
        return all(map(_only_writes, [*statement.body, *statement.orelse]))
    return isinstance(statement, (ast.AugAssign, ast.Expr))
