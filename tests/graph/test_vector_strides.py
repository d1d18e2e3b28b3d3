"""Strides that are read off must be those that inductor simplifies, and leave its code as it is."""

import importlib
import re
from contextlib import nullcontext
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import sympy
import torch
from torch._inductor.cpu_vec_isa import pick_vec_isa
from torch.utils._sympy.functions import FloorDiv, ModularIndexing

from ctde_kit.graph import compile_graph, trace
from ctde_kit.graph.vector_strides import plain_strides, stride_of_sum

cpp: Any = importlib.import_module("torch._inductor.codegen.cpp")
stride_at_vec_range = cpp.stride_at_vec_range
X, Y, Z = sympy.symbols("x y z", integer=True, nonnegative=True)
SUMS = [X, Y, 3 * X, X + Y, 2 * X + 24 * Y + Z, X + 7, 24 * X - 3 * X, 5 * Y + 2 * (X + Y), sympy.Integer(9)]
WITH_QUOTIENTS = [FloorDiv(Y, 4) + 6 * X, ModularIndexing(Y, 2, 3) + X]
NOT_PLAIN = [
    X * Y,
    X**2,
    FloorDiv(X, 4),
    FloorDiv(X, 16) + X,
    ModularIndexing(X, 1, 5),
    2 * FloorDiv(X, 3) + Y,
    X / 3,
    FloorDiv(X, 16) < 3,
]


@pytest.mark.parametrize("index", SUMS + WITH_QUOTIENTS, ids=str)
def test_a_plain_stride_is_the_one_that_inductor_finds(index: sympy.Expr) -> None:
    for variable, length in product((X, Z), (None, 8, 16)):
        assert stride_of_sum(index, variable) == stride_at_vec_range(index, variable, length)


@pytest.mark.parametrize("index", NOT_PLAIN, ids=str)
def test_everything_else_is_left_to_inductor(index: sympy.Expr) -> None:
    assert stride_of_sum(index, X) is None
    if not index.has(sympy.Rational(1, 3)):
        with plain_strides():
            assert cpp.stride_at_vec_range(index, X, 8) == stride_at_vec_range(index, X, 8)


def test_inductor_is_left_as_it_was() -> None:
    before = cpp.stride_at_vec_range
    with plain_strides():
        assert cpp.stride_at_vec_range is not before
    assert cpp.stride_at_vec_range is before


def _kernels(monkeypatch: pytest.MonkeyPatch, folder: Path) -> tuple[set[str], int]:
    """The C++ that is written for a graph of products, sums and slices, and how many strides were simplified."""
    pick_vec_isa()  # which writes C++ of its own, once per process
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder))
    simplified = 0

    def counting(*args: Any) -> Any:
        nonlocal simplified
        simplified += 1
        return stride_at_vec_range(*args)

    monkeypatch.setattr(cpp, "stride_at_vec_range", counting)
    a, b = torch.rand(5, 33), torch.rand(33, 5)

    def function(inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        x, y = inputs
        return [(x * y.T + 1)[:, ::2].sum(0), torch.cat([x[:, 1:4], y.T[:, 2:5]], 1).repeat_interleave(3, 1), x.amax(1)]

    compiled = compile_graph(trace(function, [a, b]))
    for found, expected in zip(compiled([a, b]), function([a, b]), strict=True):
        torch.testing.assert_close(found, expected)
    sources = (path.read_text() for path in folder.rglob("*.cpp"))
    return {re.sub(r"kernel_\w+|PyInit_\w+", "", source) for source in sources}, simplified


def test_the_code_is_the_same_and_fewer_strides_are_simplified(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with monkeypatch.context() as patch:
        plain, simplified = _kernels(patch, tmp_path / "plain")
    with monkeypatch.context() as patch:
        patch.setattr("ctde_kit.graph.tracing.plain_strides", nullcontext)
        general, all_of_them = _kernels(patch, tmp_path / "general")
    assert plain == general
    assert plain
    assert simplified < all_of_them / 2
