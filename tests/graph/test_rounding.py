"""Compiled graphs round as torch does where that matters."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from ctde_kit.graph import Graph, TraceError, compile_graph, trace
from ctde_kit.graph.agreement import STEPS_COMPARED, compile_in_agreement, share_apart


def norms(inputs: list[Tensor]) -> list[Tensor]:
    pairs, triples, transposed = inputs
    return [
        torch.linalg.vector_norm(pairs, dim=-1),
        torch.linalg.vector_norm(pairs * 2, dim=-1, keepdim=True),
        triples.norm(dim=-1),
        torch.linalg.vector_norm(transposed.t(), dim=-1),
        torch.linalg.vector_norm(triples, dim=0),
        torch.linalg.vector_norm(pairs, ord=1, dim=-1),
    ]


@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="torch fuses nothing here")
def test_norms_equal_torchs_bit_for_bit() -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(500, 2), torch.randn(500, 3), torch.randn(2, 500)]
    compiled = compile_graph(trace(norms, inputs), threads=1)(list(inputs))
    for expected, found in zip(norms(inputs), compiled, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 if expected.shape == (3,) else 0)


def oscillation(inputs: list[Tensor]) -> list[Tensor]:
    (x,) = inputs
    return [x.sin() * 2, x.cos(), torch.logaddexp(x, 2 * x), x.exp() + 1, x.abs().sqrt(), (x * x).sum(-1)]


def test_exact_graphs_call_torchs_kernels() -> None:
    torch.manual_seed(0)
    x = torch.randn(300, 50)
    graph = trace(oscillation, [x], exact=True)
    targets = {str(node.target) for node in graph.module.graph.nodes if node.op == "call_function"}
    kept = {f"ctde_kit.{name}.default" for name in ("sin", "cos", "logaddexp", "exp", "sqrt", "sum_dim_IntList")}
    assert kept <= targets
    for expected, found in zip(oscillation([x]), compile_graph(graph, threads=1)([x]), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_the_exact_graph_is_taken_where_the_fast_one_differs() -> None:
    x = torch.linspace(-1, 1, 6)
    asked: list[bool] = []

    def trace_graph(exact: bool) -> Graph:
        asked.append(exact)
        return trace(lambda inputs: [inputs[0].sin() + (0 if exact else 1)], [x], exact=exact)

    def sine(inputs: list[Tensor]) -> list[Tensor]:
        return [inputs[0].sin()]

    agree = partial(
        compile_in_agreement,
        sine,
        [x],
        following=lambda inputs, outputs: [inputs[0] + outputs[0]],
        restoring=lambda function: function(),
        threads=1,
    )
    graph, compiled = agree(trace_graph=trace_graph)
    assert asked == [False, True]
    torch.testing.assert_close(compiled([x])[0], x.sin(), rtol=0, atol=0)
    assert [str(node.target) for node in graph.module.graph.nodes if "sin" in node.name] == ["ctde_kit.sin.default"]
    with pytest.raises(TraceError, match="different numbers"):
        agree(trace_graph=lambda exact: trace(lambda inputs: [inputs[0] + 1], [x]))


def test_entries_apart_are_counted() -> None:
    plain = torch.tensor([1.0, 100.0, float("nan"), 0.0])
    compiled = torch.tensor([1.0 + 3e-4, 100.005, float("nan"), float("nan")])
    assert share_apart(plain, compiled) == pytest.approx(0.25 + 0.25)  # the first, and the number that is none
    assert share_apart(plain, plain) == 0


def test_both_programs_go_on_from_the_plain_ones_steps_with_the_same_random_numbers() -> None:
    seen: list[float] = []

    def noisy(inputs: list[Tensor]) -> list[Tensor]:
        return [inputs[0] + torch.rand(4)]

    def plain(inputs: list[Tensor]) -> list[Tensor]:
        seen.append(inputs[0].min().item())
        return noisy(inputs)

    x = torch.zeros(4)
    compile_in_agreement(
        plain,
        [x],
        trace_graph=lambda exact: trace(noisy, [x], exact=exact),
        following=lambda inputs, outputs: [outputs[0] + 1],
        restoring=lambda function: function(),
        threads=1,
    )
    assert seen == sorted(seen)
    assert seen[0] == 0
    assert all(later - earlier >= 1 for earlier, later in pairwise(seen))
    assert len(seen) == STEPS_COMPARED
