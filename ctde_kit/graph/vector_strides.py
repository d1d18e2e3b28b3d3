"""Strides of plain indices for inductor's C++ loops, read off where inductor simplifies them as symbolic algebra."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ctde_kit.graph.replaced import replaced


@contextmanager
def plain_strides() -> Iterator[None]:
    """While it lasts, inductor finds the strides of sums of multiples at once; the code that it writes is the same.

    It asks for each stride of each load and store of each loop, and simplifying them takes half the time in which it
    writes the code of a VMAS step.

    >>> from ctde_kit.graph.vector_strides import plain_strides
    >>> with plain_strides():
    ...     pass
    """
    # Inductor takes as long to import as torch itself, and a run without compiling never needs it.
    cpp: Any = importlib.import_module("torch._inductor.codegen.cpp")
    general: Any = getattr(cpp, "stride_at_vec_range", None)

    def stride(index: Any, variable: Any, *length: Any, **named_length: Any) -> Any:
        plain = stride_of_sum(index, variable)
        return general(index, variable, *length, **named_length) if plain is None else plain

    with replaced(cpp, "stride_at_vec_range", stride):
        yield


def stride_of_sum(index: Any, variable: Any) -> Any:
    """By how much ``index`` grows with ``variable``; ``None`` where it is not a sum of whole multiples of variables.

    Args:
        index: a SymPy expression of variables, or a condition, which has no such stride.
        variable: one of them.

    >>> import sympy
    >>> from ctde_kit.graph.vector_strides import stride_of_sum
    >>> x, y = sympy.symbols("x y")
    >>> stride_of_sum(2 * x + y + 3, x), stride_of_sum(2 * x + y + 3, y), stride_of_sum(x * y, x)
    (2, 1, None)
    """
    import sympy

    if not isinstance(index, sympy.Expr):
        return None
    stride = sympy.Integer(0)
    for term in sympy.Add.make_args(index):
        if not term.has(variable):
            continue
        factor, rest = term.as_coeff_Mul()
        if rest != variable or not factor.is_Integer:
            return None
        stride += factor
    return stride
