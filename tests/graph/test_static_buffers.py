"""Compiled functions that keep their buffers give every call its own results."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ctde_kit.graph import compile_graph, trace
from ctde_kit.graph.static_buffers import StaticBuffers


def function(inputs: list[Tensor]) -> list[Tensor]:
    x, weight = inputs
    hidden = (x @ weight).tanh()
    parts = [part * (i + 1) for i, part in enumerate(hidden.unbind(-1))]
    return [torch.cat(parts), hidden @ weight.t(), x.reshape(-1)[2:] + 1, hidden.flip(0)]


def examples() -> list[list[Tensor]]:
    torch.manual_seed(0)
    return [[torch.randn(5, 3), torch.randn(3, 4)] for _ in range(4)]


def test_each_call_has_results_of_its_own() -> None:
    compiled = compile_graph(trace(function, examples()[0]), threads=1)
    assert isinstance(compiled.__closure__[0].cell_contents, StaticBuffers)
    results = [list(compiled(list(inputs))) for inputs in examples()]
    for inputs, found in zip(examples(), results, strict=True):
        for expected, value in zip(function(inputs), found, strict=True):
            torch.testing.assert_close(value, expected)


class Code:
    """Stands for inductor's code: two buffers, views of one and of the input."""

    def __init__(self) -> None:
        self.asked = 0
        self.namespace: dict[str, Any] = {"empty_strided_cpu": self.empty, "reinterpret_tensor": torch.as_strided}
        self.fails = False

    def empty(self, *layout: Any) -> Tensor:
        self.asked += 1
        return torch.empty_strided(*layout)

    def __call__(self, inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
        (x,) = inputs
        new, view = self.namespace["empty_strided_cpu"], self.namespace["reinterpret_tensor"]
        first = new((4,), (1,))
        if self.fails:
            raise RuntimeError("stopped")
        second = new((2,), (1,))
        tail, of_input = view(first, (2,), (1,), 2), view(x, (2,), (1,), 1)
        first.copy_(x)
        torch.add(tail, of_input, out=second)
        return first, second


def test_memory_is_asked_for_once_and_views_of_inputs_are_new() -> None:
    code = Code()
    static = StaticBuffers(code, code.namespace)
    for x in (torch.tensor([1.0, 2, 3, 4]), torch.tensor([5.0, 6, 7, 9])):
        first, second = static([x])
        assert first.tolist() == x.tolist()
        assert second.tolist() == [x[2] + x[1], x[3] + x[2]]
    assert code.asked == 2
    assert code.namespace["empty_strided_cpu"] == code.empty


def test_a_first_call_that_stops_is_forgotten() -> None:
    code = Code()
    static = StaticBuffers(code, code.namespace)
    code.fails = True
    with pytest.raises(RuntimeError, match="stopped"):
        static([torch.ones(4)])
    code.fails = False
    assert [static([torch.ones(4)])[1].tolist() for _ in range(2)] == [[2, 2], [2, 2]]
