"""Graphs without what is computed twice, copied or only named again give the numbers and the tensors that they gave."""

import operator
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, fx
from torch._inductor import config as inductor_config
from torch.fx.experimental.proxy_tensor import make_fx

from ctde_kit.graph import compile_graph, trace, tracing
from ctde_kit.graph.simplifying import drop_same_views, merge_equal

X = torch.linspace(-2, 3, 6).reshape(2, 3)
aten = torch.ops.aten
Function = Callable[[Tensor], Sequence[Tensor]]


def traced(function: Function, mode: str = "fake") -> fx.GraphModule:
    return make_fx(lambda x: tuple(function(x)), tracing_mode=mode)(X)


def targets(module: fx.GraphModule) -> Counter[object]:
    return Counter(node.target for node in module.graph.nodes if node.op == "call_function")


def check(module: fx.GraphModule, function: Function) -> None:
    outputs, expected = module(X.clone()), function(X.clone())
    for output, right in zip(outputs, expected, strict=True):
        assert torch.equal(output, right)
        assert output.stride() == right.stride()


def both(function: Function, inputs: list[Tensor], live: Sequence[Tensor] = (), compiles: bool = False) -> list[Tensor]:
    """What the traced function gives, or the compiled one."""
    saved = [tensor.clone() for tensor in live]
    graph = trace(function_of_list(function), inputs, live=live)
    compiled = compile_graph(graph) if compiles else graph
    for tensor, value in zip(live, saved, strict=True):
        tensor.copy_(value)  # tracing runs the function
    return list(compiled(inputs))


def function_of_list(function: Function) -> Callable[[list[Tensor]], Sequence[Tensor]]:
    return lambda inputs: function(inputs[0])


def changes_a_view(x: Tensor) -> Sequence[Tensor]:
    first = x + 1
    view = first.view(2, 3)
    before = first * 2
    view.mul_(3)
    return [first, view.detach().expand(2, 3), before]


def test_views_of_what_changes_are_dropped() -> None:
    module = traced(changes_a_view)
    drop_same_views(module)
    assert targets(module) == {aten.add.Tensor: 1, aten.mul.Tensor: 1, aten.mul_.Tensor: 1}
    check(module, changes_a_view)


def changes_a_shape(x: Tensor) -> Sequence[Tensor]:
    first = x + 1
    view = first.view(2, 3)
    view.unsqueeze_(0)
    return [first, view, first.sum(0)]


def test_views_whose_shape_changes_stay() -> None:
    module = traced(changes_a_shape)
    drop_same_views(module)
    assert targets(module)[aten.view.default] == 1
    check(module, changes_a_shape)


def other_shapes(x: Tensor) -> Sequence[Tensor]:
    return [x.view(3, 2), x.view(2, 3).t(), x.unsqueeze(0).expand(4, 2, 3)]


def test_other_views_stay() -> None:
    module = traced(other_shapes)
    drop_same_views(module)
    assert targets(module) == {
        aten.view.default: 1,
        aten.t.default: 1,
        aten.unsqueeze.default: 1,
        aten.expand.default: 1,
    }
    check(module, other_shapes)


def test_what_nothing_uses_is_dropped_and_what_changes_an_input_stays() -> None:
    def function(x: Tensor) -> Sequence[Tensor]:
        x.sin()
        x.add_(1)
        return [x.cos()]

    module = traced(function)
    drop_same_views(module)
    assert targets(module) == {aten.add_.Tensor: 1, aten.cos.default: 1}


def repeats(x: Tensor) -> Sequence[Tensor]:
    return [x.sin() * x.sin().clone() + torch.ops.aten.copy(x, x.cos()), x.cos().unbind(1)[2] + x.cos().unbind(1)[2]]


def test_each_expression_once_and_no_copies() -> None:
    module = traced(repeats)
    merge_equal(module)
    assert targets(module) == {
        aten.sin.default: 1,
        aten.cos.default: 1,
        aten.mul.Tensor: 1,
        aten.add.Tensor: 2,
        aten.unbind.int: 1,
        operator.getitem: 1,
    }
    check(module, repeats)


def test_outputs_stay_apart_from_each_other_and_from_inputs() -> None:
    def function(x: Tensor) -> Sequence[Tensor]:
        maxima = [x.max(1)[0], x.max(1)[0]]
        return [x + 1, x + 1, x.clone(), x.clone().view(3, 2), torch.zeros(2), torch.zeros(2), *maxima]

    outputs = trace(function_of_list(function), [X])([X])
    assert len({tensor.data_ptr() for tensor in (X, *outputs)}) == 1 + len(outputs)


@pytest.mark.parametrize(
    "copied",
    [
        lambda x: x.t().clone(memory_format=torch.contiguous_format) + 1,
        lambda x: torch.ops.aten.copy(x, x.double()) / 3,
        lambda x: torch.ops.aten.copy(x, x[0]) / 3,
    ],
)
def test_copies_that_change_layout_shape_or_type_stay(copied: Callable[[Tensor], Tensor]) -> None:
    module = traced(lambda x: [copied(x)])
    before = targets(module)
    merge_equal(module)
    assert targets(module) == before
    check(module, lambda x: [copied(x)])


SIGNED: dict[str, Function] = {
    "full": lambda x: [x / torch.full((3,), 0.0), x / torch.full((3,), -0.0)],
    "mixed": lambda x: [x / torch.tensor([0.0, -0.0, 0.0]), x / torch.tensor([-0.0, -0.0, -0.0])],
    "scalar": lambda x: [torch.copysign(x, 0.0), torch.copysign(x, -0.0)],
    "types": lambda x: [(x > 0) * True, (x > 0) * 1, (x > 0) * 1.0],
}


@pytest.mark.parametrize("function", SIGNED.values(), ids=SIGNED)
@pytest.mark.parametrize("compiles", [False, True])
def test_numbers_that_compare_equal_stay_apart(function: Function, compiles: bool) -> None:
    x = X + 0.5
    for output, right in zip(both(function, [x], compiles=compiles), function(x), strict=True):
        assert output.dtype == right.dtype
        assert torch.equal(output.signbit(), right.signbit())
        torch.testing.assert_close(output, right, equal_nan=True)


def test_views_of_live_tensors_and_of_constants() -> None:
    weight, constant = torch.ones(2, 3), torch.arange(6.0).reshape(2, 3)

    def function(x: Tensor) -> Sequence[Tensor]:
        return [x * weight.view(2, 3) + constant.expand(2, 3)]

    (output,) = both(function, [X], live=[weight])
    assert torch.equal(output, X + constant)


def test_conjugates_are_resolved() -> None:
    x = torch.tensor([1 + 2j])
    (output,) = both(lambda x: [torch.view_as_real(x.conj().clone()) * 2], [x])
    assert output.tolist() == [[2.0, -4.0]]


def test_copies_that_begin_elsewhere_in_memory_stay() -> None:
    (output,) = both(lambda x: [x[0, 1:].clone().as_strided((2,), (1,), 0) + 0], [X])
    assert torch.equal(output, X[0, 1:])


@pytest.mark.parametrize("compiles", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool])
def test_live_tensors_get_the_values_of_others_from_before_the_change(compiles: bool, dtype: torch.dtype) -> None:
    first, second, rows = (torch.tensor(value).to(dtype) for value in ([[1, 0]], [[0, 1]], [[1, 0], [0, 1]]))
    last = torch.zeros_like(first[0])

    def function(x: Tensor) -> Sequence[Tensor]:
        kept = first.clone()
        first.copy_(second)
        second.copy_(kept)
        last.copy_(rows[0])
        rows.copy_(rows.flip(0))
        return [x + first]

    expected = [tensor.clone() for tensor in (second, first, rows[0], rows.flip(0))]
    both(function, [X[:, :2]], live=[first, second, rows, last], compiles=compiles)
    for tensor, right in zip((first, second, last, rows), expected, strict=True):
        assert torch.equal(tensor, right)


def test_equal_constants_are_one() -> None:
    values = [0.0, -0.0, 2.0, 2.0]  # -0.0 equals 0.0

    def function(inputs: list[Tensor]) -> list[Tensor]:
        return [inputs[0] / torch.tensor(value) for value in values]

    graph = trace(function, [X])
    full = [node for node in graph.module.graph.nodes if node.target is aten.full.default]
    assert len(full) == 3
    for output, right in zip(graph([X]), function([X]), strict=True):
        assert torch.equal(output.nan_to_num(7), right.nan_to_num(7))


@pytest.mark.parametrize("n", [10, 2_100])
def test_large_graphs_are_fused_with_fewer_attempts_and_none_is_partitioned(
    n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = list[tuple[int, bool]]()
    compile_fx = pytest.importorskip("torch._inductor.compile_fx")

    def compile_fx_inner(module: fx.GraphModule, *args: object, **kwargs: object) -> fx.GraphModule:
        found.append((inductor_config.max_fusion_buffer_group_pairwise_attempts, inductor_config.graph_partition))
        return module

    monkeypatch.setattr(compile_fx, "compile_fx_inner", compile_fx_inner)
    graph = trace(lambda inputs: [sum((inputs[0] + i for i in range(n)), inputs[0])], [X])
    compile_graph(graph)
    usual = inductor_config.max_fusion_buffer_group_pairwise_attempts
    assert found == [(tracing._FEW_ATTEMPTS if n > tracing._LARGE else usual, False)]
