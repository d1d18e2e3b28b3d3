"""The GRU's sequence as one operation, by torch and in C++, against a loop of steps that autograd differentiates."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from ctde_kit.graph import compile_graph, trace
from ctde_kit.graph.cpp_library import use_cpp_kernels
from ctde_kit.kernels import CPP_KERNELS
from ctde_kit.modules import MultiAgentGRU
from ctde_kit.modules.networks.gru_kernel import SOURCE, gru_sequence_backward_kernel, gru_sequence_kernel
from ctde_kit.modules.networks.gru_sequence import gru_sequence, gru_sequence_backward, gru_states, states_before

# Groups, steps, rows and units: below, at and across the kernel's blocks of rows and panels of units.
SIZES = [(1, 5, 3, 8), (3, 7, 13, 5), (2, 6, 25, 33), (1, 1, 1, 1), (1, 9, 24, 64)]
sizes = pytest.mark.parametrize("shape", SIZES, ids=str)
Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def inputs(shape: tuple[int, int, int, int], dtype: torch.dtype = torch.float64) -> Inputs:
    """Gates, hidden states, resets, weights and biases; a fifth of the steps are resets, first ones among them."""
    groups, steps, rows, size = shape
    random = torch.Generator().manual_seed(3)

    def normal(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=random, dtype=torch.float64).to(dtype)

    resets = torch.rand(groups, steps, rows, generator=random) < 0.2
    resets[:, 0, 0] = True
    weight = normal(groups, 3 * size, size) / size**0.5
    return normal(groups, steps, rows, 3 * size), normal(groups, rows, size), resets, weight, normal(groups, 3 * size)


def loop(gates: Tensor, hidden: Tensor, resets: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The states, step by step."""
    states = []
    for t in range(gates.shape[1]):
        if t > 0:
            hidden = hidden.masked_fill(resets[:, t].unsqueeze(-1), 0)
        reset_in, update_in, new_in = gates[:, t].chunk(3, -1)
        reset_hidden, update_hidden, new_hidden = (hidden @ weight.mT + bias.unsqueeze(1)).chunk(3, -1)
        update = torch.sigmoid(update_in + update_hidden)
        new = torch.tanh(new_in + torch.sigmoid(reset_in + reset_hidden) * new_hidden)
        hidden = (1 - update) * new + update * hidden
        states.append(hidden)
    return torch.stack(states, 1)


def gradients(function: Callable[..., Tensor], arguments: Inputs) -> list[Tensor]:
    """The states, and the gradients of all inputs but resets."""
    gates, hidden, resets, weight, bias = arguments
    learned = [x.clone().requires_grad_() for x in (gates, hidden, weight, bias)]
    states = function(learned[0], learned[1], resets, learned[2], learned[3])
    upstream = torch.randn(states.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return [states.detach(), *torch.autograd.grad((states * upstream.to(states)).sum(), learned)]


@sizes
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-5)], ids=str)
def test_states_and_gradients_are_those_of_a_loop(shape: Any, dtype: torch.dtype, tolerance: float) -> None:
    actual, expected = gradients(gru_states, inputs(shape, dtype)), gradients(loop, inputs(shape))
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=tolerance, atol=tolerance * other.abs().max().item())


def test_gradients_are_those_of_differences() -> None:
    gates, hidden, resets, weight, bias = (x.requires_grad_(x.is_floating_point()) for x in inputs((2, 4, 3, 2)))
    assert torch.autograd.gradcheck(gru_states, (gates, hidden, resets, weight, bias), atol=1e-6)


def test_a_gradient_that_nobody_asks_for_is_not_computed() -> None:
    gates, hidden, resets, weight, bias = inputs((2, 4, 3, 2))
    arguments = (gates.requires_grad_(), hidden, resets, weight.requires_grad_(), bias)
    expected = torch.autograd.grad(loop(*arguments).sum(), [gates, weight])
    # The operation itself calls it once, and the gradient of weights a second time.
    with mock.patch(f"{gru_states.__module__}.states_before", wraps=states_before) as calls:
        both = torch.autograd.grad(gru_states(*arguments).sum(), [gates, weight])
        assert calls.call_count == 2
        one = torch.autograd.grad(gru_states(*arguments[:3], weight.detach(), bias).sum(), [gates])
        assert calls.call_count == 3
    torch.testing.assert_close((*both, *one), (*expected, expected[0]))


@pytest.mark.slow
def test_torch_finds_the_operations_complete() -> None:
    arguments = (*(x.requires_grad_(x.is_floating_point()) for x in inputs((2, 4, 3, 2))), True)
    torch.library.opcheck(gru_sequence, arguments)


def test_second_derivatives_are_refused() -> None:
    gates, *others = inputs((1, 3, 2, 4))
    states = gru_states(gates.requires_grad_(), *others)
    (gradient,) = torch.autograd.grad(states.sum(), gates, create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivatives"):
        gradient.sum().backward()


def test_gradients_by_functions_and_of_several_sequences_at_once() -> None:
    gates, hidden, resets, weight, bias = inputs((2, 4, 3, 2))

    def loss(function: Callable[..., Tensor], gates: Tensor) -> Tensor:
        return function(gates, hidden, resets, weight, bias).square().sum()

    several = torch.stack([gates, -gates, 2 * gates])
    actual, expected = (
        torch.vmap(torch.func.grad(functools.partial(loss, function)))(several) for function in (gru_states, loop)
    )
    torch.testing.assert_close(actual, expected)


def unrolled_gradients(gru: MultiAgentGRU) -> Callable[[list[Tensor]], list[Tensor]]:
    def function(given: list[Tensor]) -> list[Tensor]:
        with torch.enable_grad():
            outputs, after, _ = gru.unroll(*given)
            loss = outputs.square().sum() + after.sin().sum()
            return [outputs, after, *torch.autograd.grad(loss, list(gru.parameters()))]

    return function


def unrolled(steps: int) -> list[Tensor]:
    is_init = torch.zeros(4, steps, 1, dtype=torch.bool)
    is_init[1, 2] = True
    return [torch.randn(4, steps, 3, 5), torch.randn(4, 3, 8), is_init]


def make_gru(share: Any = True) -> MultiAgentGRU:
    return MultiAgentGRU(5, 2, n_agents=3, share_params=share, hidden_size=8, num_cells=(6,))


def test_a_graph_is_as_long_for_many_steps_as_for_few() -> None:
    gru = make_gru()
    few, many = (trace(unrolled_gradients(gru), unrolled(steps), gru.parameters()) for steps in (3, 30))
    assert len(few.module.graph.nodes) == len(many.module.graph.nodes) < 200


def test_torch_compile_takes_it_without_a_break() -> None:
    gru, given = make_gru(), unrolled(5)
    compiled = torch.compile(lambda *x: gru.unroll(*x)[0].square().sum(), fullgraph=True, backend="aot_eager")
    expected = torch.autograd.grad(gru.unroll(*given)[0].square().sum(), list(gru.parameters()))
    torch.testing.assert_close(torch.autograd.grad(compiled(*given), list(gru.parameters())), expected)


@pytest.mark.parametrize("share", [True, False], ids=str)
def test_autocast_gives_what_single_steps_give(share: Any) -> None:
    gru, (x, hidden, is_init) = make_gru(share), unrolled(5)
    exact = torch.autograd.grad(gru.unroll(x, hidden, is_init)[0].square().sum(), list(gru.parameters()))
    with torch.autocast("cpu", torch.bfloat16):
        outputs, after, _ = gru.unroll(x, hidden, is_init)
        for t in range(5):
            output, hidden, _ = gru(x[:, t], hidden, is_init[:, t])
            torch.testing.assert_close(outputs[:, t], output, rtol=0, atol=0.01)
    torch.testing.assert_close(after[:, -1], hidden, rtol=0, atol=0.01)
    gradients = torch.autograd.grad(outputs.float().square().sum(), list(gru.parameters()))
    for one, other in zip(gradients, exact, strict=True):
        assert (one - other).norm() < 0.05 * other.norm()


def by_cpp(arguments: Inputs) -> list[Tensor]:
    """What ``gradients`` gives but for weights and biases, by the kernels alone."""
    gates, hidden, resets, weight, bias = arguments
    states, kept = gru_sequence_kernel(gates, hidden, resets, weight, bias, True)
    upstream = torch.randn(states.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64).float()
    results = gru_sequence_backward_kernel(upstream, hidden, resets, weight, states, kept)
    expected = gru_sequence_backward(upstream, hidden, resets, weight, states, kept)
    torch.testing.assert_close(results, expected, rtol=1e-5, atol=1e-6 * gates.shape[-1])
    return [states, results[0], results[2]]


@sizes
def test_the_kernel_gives_what_a_loop_gives(shape: Any) -> None:
    states, of_gates, of_hidden, *_ = gradients(loop, inputs(shape))
    for one, other in zip(by_cpp(inputs(shape, torch.float32)), (states, of_gates, of_hidden), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5 * other.abs().max().item())
    without = gru_sequence_kernel(*inputs(shape, torch.float32), False)
    assert without[1].numel() == 0
    torch.testing.assert_close(without[0].double(), states, rtol=1e-5, atol=1e-5)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_the_kernels_bits_are_those_of_any_number_of_threads_and_rows(two_threads: None) -> None:
    arguments = inputs((3, 7, 25, 33), torch.float32)
    several = by_cpp(arguments)
    torch.set_num_threads(1)
    for one, other in zip(by_cpp(arguments), several, strict=True):
        assert torch.equal(one, other)
    gates, hidden, resets, weight, bias = arguments
    alone, _ = gru_sequence_kernel(gates[:, :, 4:5], hidden[:, 4:5], resets[:, :, 4:5], weight, bias, False)
    assert torch.equal(alone, several[0][:, :, 4:5])


def test_what_is_not_a_number_stays_in_its_episode_and_is_seen() -> None:
    gates, hidden, resets, weight, bias = inputs((1, 6, 4, 8), torch.float32)
    resets[0, :, 1], gates[0, 1, 1] = torch.arange(6) == 3, torch.nan
    bad = gru_sequence_kernel(gates, hidden, resets, weight, bias, False)[0].isnan().any(-1)[0]
    assert bad.nonzero().tolist() == [[1, 1], [2, 1]]


def operations(module: torch.fx.GraphModule) -> list[str]:
    return [str(node.target) for node in module.graph.nodes if "gru" in str(node.target)]


@pytest.mark.parametrize("share", [True, False, [0, 1, 0]], ids=str)
def test_a_graph_takes_the_kernels(share: Any) -> None:
    gru, given = make_gru(share), unrolled(5)
    function = unrolled_gradients(gru)
    graph = trace(function, given, gru.parameters())
    names = ["ctde_kit.gru_sequence", "ctde_kit.gru_sequence_backward"]
    assert operations(graph.module) == [f"{name}.default" for name in names]
    use_cpp_kernels(graph.module)
    assert operations(graph.module) == [f"{name}_kernel.default" for name in names]
    for one, other in zip(graph(given), function(given), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_compiled_graph_gives_the_eager_numbers() -> None:
    gru, given = make_gru(), unrolled(5)
    function = unrolled_gradients(gru)
    graph = trace(function, given, gru.parameters())
    compiled = compile_graph(graph)
    assert operations(graph.module)[0] == "ctde_kit.gru_sequence_kernel.default"
    for one, other in zip(compiled(given), function(given), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_other_numbers_and_what_no_compiler_takes_run_by_torch(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.cpp"
    bad.write_text("this is no C++")
    for source, dtype, lines in ((SOURCE, torch.float64, 0), (bad, torch.float32, 1)):
        gru, given = make_gru().to(dtype), [x.to(dtype) if x.is_floating_point() else x for x in unrolled(3)]
        graph = trace(lambda x, gru=gru: [gru.unroll(*x)[0]], given, gru.parameters())
        kernels = {name: replace(kernel, source=source) for name, kernel in CPP_KERNELS.items()}
        with mock.patch.dict(CPP_KERNELS, kernels), caplog.at_level(logging.WARNING, logger="ctde_kit"):
            use_cpp_kernels(graph.module)
        assert operations(graph.module) == ["ctde_kit.gru_sequence.default"]
        messages = [record.getMessage() for record in caplog.records if record.name == "ctde_kit"]
        assert [message.startswith("bad.cpp is not compiled: ") for message in messages] == [True] * lines
