"""Graphs equal the functions that they were traced from, on other data than they were traced with."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ctde_kit.graph import TraceError, compile_graph, mode, toolchain, trace
from ctde_kit.graph.draws import drawing_from
from ctde_kit.graph.shortcuts import taking_shortcuts

TRACED = [torch.tensor([[1.0, -2.0], [3.0, 4.0], [-5.0, 6.0]]), torch.tensor([True, False, True])]
OTHER = [torch.tensor([[-1.0, 2.5], [0.5, -4.0], [7.0, 8.0]]), torch.tensor([False, True, True])]
NONE = [OTHER[0], torch.zeros(3, dtype=torch.bool)]


def masked_subtract(inputs: list[Tensor]) -> list[Tensor]:
    x, mask = inputs[0].clone(), inputs[1]
    x[mask] -= 1
    return [x]


def masked_assign(inputs: list[Tensor]) -> list[Tensor]:
    x, mask = inputs[0].clone(), inputs[1]
    x[mask] = torch.tensor([9.0, 8.0])
    x[~mask, 1] = 0.5
    return [x]


def masked_rows(inputs: list[Tensor]) -> list[Tensor]:
    x, mask = inputs[0].clone(), inputs[1]
    length = x[~mask].norm(dim=-1)
    x[~mask] /= x[~mask].abs() + 1
    x[~mask, 0] = length
    return [x]


def masked_from_another(inputs: list[Tensor]) -> list[Tensor]:
    x, mask = inputs
    result = torch.zeros_like(x)
    result[mask] = (x * 2)[mask]
    result[:, 0][mask] += 1
    return [result]


def two_dimensional_mask(inputs: list[Tensor]) -> list[Tensor]:
    x = inputs[0].clone()
    x[x < 0] = 0
    x[x > 2] *= -1
    return [x]


FUNCTIONS = [masked_subtract, masked_assign, masked_rows, masked_from_another, two_dimensional_mask]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("inputs", [OTHER, NONE], ids=["other rows", "no rows"])
def test_masked_access(function: Callable[[list[Tensor]], list[Tensor]], inputs: list[Tensor]) -> None:
    graph = trace(function, TRACED)
    for expected, found in zip(function(inputs), graph(inputs), strict=True):
        torch.testing.assert_close(found, expected)


def test_inputs_are_left_alone() -> None:
    inputs = [x.clone() for x in TRACED]
    trace(masked_subtract, inputs)
    assert all(map(torch.equal, inputs, TRACED))


REFUSED = {
    "branches on a tensor": lambda x, m: [x + 1 if x.sum() > 0 else x],
    "item": lambda x, m: [x * x.sum().item()],
    "nonzero": lambda x, m: [m.nonzero()],
    "counts the rows": lambda x, m: [torch.zeros(len(x[m]))],
    "calls cumsum": lambda x, m: [x[m].cumsum(0)],
    "combines rows of two masks": lambda x, m: [torch.where(m[:, None], x, x).copy_(x) + (x[m] + x[~m]).full],
    "another length": lambda x, m: [(x[m] + torch.ones(2, 2)).full],
    "draws random numbers inside": lambda x, m: [nn.functional.dropout(x)],
}


@pytest.mark.parametrize("reason", REFUSED)
def test_refusals_name_the_reason_and_the_place(reason: str) -> None:
    with pytest.raises(TraceError, match=reason) as caught:
        trace(lambda inputs: REFUSED[reason](*inputs), TRACED)
    assert "\n" not in str(caught.value)
    assert "test_tracing.py:" in str(caught.value) or "aten" in str(caught.value)


def test_assertions_hold_at_tracing_and_are_gone() -> None:
    def function(inputs: list[Tensor]) -> list[Tensor]:
        assert not inputs[0].isnan().any(), "nan"
        return [inputs[0] + 1]

    graph = trace(function, TRACED)
    assert torch.equal(graph(OTHER)[0], OTHER[0] + 1)
    with pytest.raises(AssertionError, match="nan"):
        trace(function, [TRACED[0] * float("nan"), TRACED[1]])


class Stream:
    """A generator apart from the program's."""

    def __init__(self) -> None:
        self.state = torch.Generator().manual_seed(5).get_state()

    def active(self) -> AbstractContextManager[None]:
        stream = self

        class Active:
            def __enter__(self) -> None:
                self.outside = torch.get_rng_state()
                torch.set_rng_state(stream.state)

            def __exit__(self, *_: object) -> None:
                stream.state = torch.get_rng_state()
                torch.set_rng_state(self.outside)

        return Active()


def test_random_numbers_come_from_outside_in_the_same_order() -> None:
    stream = Stream()

    def function(inputs: list[Tensor]) -> list[Tensor]:
        x = inputs[0]
        noise = torch.randn_like(x) + torch.rand(3, 1)
        with drawing_from(stream):
            own = torch.zeros(3).uniform_(2, 3)
        choice = torch.distributions.Categorical(logits=x).sample()
        normal = torch.distributions.Normal(x, 2.0).rsample()
        return [noise, own, choice, normal, torch.randint(0, 9, (4,)), torch.randperm(5)]

    graph = trace(function, TRACED)
    torch.manual_seed(3)
    stream.state = torch.Generator().manual_seed(7).get_state()
    expected = function(OTHER)
    torch.manual_seed(3)
    stream.state = torch.Generator().manual_seed(7).get_state()
    found = graph([*OTHER, *graph.draw()])
    assert all(map(torch.equal, expected, found))
    assert not torch.equal(graph([*OTHER, *graph.draw()])[0], found[0])


def test_live_tensors_are_read_at_each_call_and_constants_are_not() -> None:
    weight, constant = nn.Parameter(torch.ones(2)), torch.ones(2)
    graph = trace(lambda inputs: [inputs[0] * weight + constant], TRACED, [weight])
    with torch.no_grad():
        weight.fill_(3.0)
    constant.fill_(100.0)
    assert torch.equal(graph(OTHER)[0], OTHER[0] * 3 + 1)
    assert len(graph.live) == 1


def test_gradients_inside_a_graph() -> None:
    weight = nn.Parameter(torch.tensor([[0.5, -1.0], [2.0, 0.1]]))

    def function(inputs: list[Tensor]) -> list[Tensor]:
        with torch.enable_grad():
            loss = (inputs[0] @ weight).tanh().square().mean()
            return list(torch.autograd.grad(loss, [weight]))

    graph = trace(function, TRACED, [weight])
    torch.testing.assert_close(graph(OTHER)[0], function(OTHER)[0])


class LibraryShortcuts:
    """All branches of the files in a folder are shortcuts, and whoever asks ``collides`` is guarded."""

    def __init__(self, folder: Path):
        self.folder = str(folder)

    def covers(self, frame: FrameType) -> bool:
        return frame.f_code.co_filename.startswith(self.folder)

    def guarded(self, frame: FrameType, condition: Tensor) -> FrameType | None:
        return frame.f_back if frame.f_code.co_name == "collides" else None

    def correct(self, function: Callable[..., Any], frame: FrameType, before: Any, after: Any) -> Any:
        return after


def test_a_block_under_a_condition_over_the_batch(tmp_path: Path) -> None:
    source = tmp_path / "core.py"
    source.write_text("def collides(x):\n    return True if (x[:, 0] > 5).any() else False\n")
    namespace: dict = {}
    exec(compile(source.read_text(), str(source), "exec"), namespace)
    collides = namespace["collides"]

    def function(inputs: list[Tensor]) -> list[Tensor]:
        x = inputs[0]
        reward = x[:, 1].clone()
        if collides(x):
            near = x[:, 1] > 0
            reward[near] -= 10
            reward += 1
        return [reward + 0.5]

    with pytest.raises(TraceError, match=r"branches on a tensor at core.py:2"):
        trace(function, TRACED)
    with taking_shortcuts(LibraryShortcuts(tmp_path)):
        graph = trace(function, TRACED)
    far = [torch.tensor([[-1.0, 2.5], [0.5, -4.0], [4.0, 8.0]]), OTHER[1]]
    for inputs in (OTHER, far, TRACED):
        torch.testing.assert_close(graph(inputs)[0], function(inputs)[0])

    def rebinds(inputs: list[Tensor]) -> list[Tensor]:
        result = inputs
        if collides(inputs[0]):
            result.append(inputs[0])
        else:
            result = []
        return result

    with taking_shortcuts(LibraryShortcuts(tmp_path)), pytest.raises(TraceError, match="branches on a tensor"):
        trace(rebinds, TRACED)


def test_a_loop_that_data_ends_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "utils.py"
    source.write_text("def place(x):\n    while (x < 0).any():\n        x = x + 1\n    return x\n")
    namespace: dict = {}
    exec(compile(source.read_text(), str(source), "exec"), namespace)
    expected = pytest.raises(TraceError, match=r"loops until a tensor says stop at utils.py:2")
    with taking_shortcuts(LibraryShortcuts(tmp_path)), expected:
        trace(lambda inputs: [namespace["place"](inputs[0])], TRACED)


def test_machine_code_gives_the_same() -> None:
    weight = nn.Parameter(torch.randn(2, 2))

    def function(inputs: list[Tensor]) -> list[Tensor]:
        x = inputs[0].clone()
        x[inputs[1]] -= torch.tensor([1.0, 2.0])
        return [x @ weight + torch.rand(3, 2), x.sum(-1) > torch.tensor(0.3)]

    graph = trace(function, TRACED, [weight])
    compiled = compile_graph(graph)
    with torch.no_grad():
        weight.mul_(-2)
    torch.manual_seed(0)
    expected = function(OTHER)
    torch.manual_seed(0)
    for plain, found in zip(expected, compiled([*OTHER, *graph.draw()]), strict=True):
        torch.testing.assert_close(found, plain.detach())


@pytest.mark.parametrize(("name", "hint"), [("which", "C\\+\\+ compiler"), ("headers", "Python's headers")])
def test_a_missing_toolchain_is_named(name: str, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "which":
        monkeypatch.setattr(toolchain.shutil, "which", lambda _: None)
    else:
        monkeypatch.setattr(toolchain.sysconfig, "get_paths", lambda: {"include": "/nowhere"})
    graph = trace(masked_subtract, TRACED)
    with pytest.raises(TraceError, match=hint):
        compile_graph(graph)


def test_a_function_with_too_many_calls_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mode, "MOST_CALLS", 10)
    with pytest.raises(TraceError, match="more than 10 calls"):
        trace(lambda inputs: [sum((inputs[0] * i for i in range(20)), inputs[0])], TRACED)


def test_a_graph_that_is_too_long_is_refused() -> None:
    graph = trace(lambda inputs: [sum((inputs[0] * i for i in range(20)), inputs[0])], TRACED)
    with pytest.raises(TraceError, match="operations, more than 10"):
        compile_graph(graph, largest=10)


@pytest.mark.parametrize(("many", "said"), [(9, ["compiling 9 operations, about 12 min"]), (10, [])])
def test_a_long_compilation_is_announced(
    many: int, said: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(toolchain, "MANY_OPERATIONS", many)
    monkeypatch.setattr(toolchain, "SECONDS_PER_OPERATION", 80)
    graph = trace(lambda inputs: [sum((inputs[0] * i for i in (2, 3, 4)), inputs[0])], TRACED)
    with caplog.at_level(logging.WARNING, logger="ctde_kit"):
        compile_graph(graph)
    messages = [record.getMessage() for record in caplog.records if record.name == "ctde_kit"]
    assert [message.split(", or")[0] for message in messages] == said


def test_a_graph_with_constants_is_found_in_the_cache_by_another_process() -> None:
    tables = [torch.arange(6.0).reshape(3, 2), torch.eye(2)]
    graph = trace(lambda inputs: [inputs[0] * (tables[0] + 1) @ (tables[1] * 2)], [TRACED[0]])
    assert len(list(graph.module.buffers())) == 2
    # A set of names, pickled into the key, has another order in each process.
    assert not graph.module._non_persistent_buffers_set


def test_autocast_around_the_trace_casts_what_it_casts_in_the_function() -> None:
    x, y = torch.rand(3, 4), torch.rand(4, 2)

    def plain(inputs: list[Tensor]) -> list[Tensor]:
        with torch.autocast("cpu", enabled=False):
            return [inputs[0] @ inputs[1]]

    with torch.autocast("cpu", torch.bfloat16):
        exempt, cast = trace(plain, [x, y]), trace(lambda inputs: [inputs[0] @ inputs[1]], [x, y])
        expected = x @ y
    assert torch.equal(exempt([x, y])[0], x @ y)
    assert torch.equal(cast([x, y])[0], expected)
    assert expected.dtype == torch.bfloat16
