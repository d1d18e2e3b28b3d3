"""A graph that was lowered before is read, and is the same in all that a compiler sees."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx
from torch._dynamo.utils import counters
from torch._inductor import config as inductor_config

from ctde_kit.graph import Graph, compile_graph, lowering, trace
from ctde_kit.graph.tracing import Function


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    return tmp_path / "ctde_kit_lowered"


@pytest.fixture
def times_lowered(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Has an entry for each graph that was lowered instead of read."""
    found: list[int] = []
    make_fx = lowering.make_fx

    def counted(*args: Any, **kwargs: Any) -> Any:
        found.append(len(found))
        return make_fx(*args, **kwargs)

    monkeypatch.setattr(lowering, "make_fx", counted)
    return found


TABLE = torch.tensor([[1.0, 2.0, 4.0], [0.5, 3.0, 9.0]])


def busy(inputs: list[Tensor]) -> list[Tensor]:
    """Views, changes in place, several outputs of one call, dtypes, slices, random numbers, a norm and a constant."""
    x, y = inputs[0].clone(), inputs[1]
    x[:, 1:] += TABLE[:, :2].sum()
    largest, where = x.max(dim=-1)
    first, second = (x * TABLE).unbind(0)
    noise = torch.rand(3) * torch.arange(3, dtype=torch.float32)
    y.add_(1)
    length = torch.linalg.vector_norm(x, dim=-1)
    bits = x.view(torch.int32) + 1
    return [largest, where, first + noise, second.to(torch.float64), length, x.t().reshape(-1), y > 2, bits]


def inputs() -> list[Tensor]:
    return [torch.tensor([[3.0, 1.0, 2.0], [5.0, 0.0, -4.0]]), torch.zeros(4, dtype=torch.int64)]


def nodes(graph: Graph) -> list[object]:
    def layout(value: Any) -> object:
        if isinstance(value, (tuple, list)):
            return [layout(x) for x in value]
        return (value.shape, value.stride(), value.dtype, value.storage_offset(), value.device)

    found = graph.module.graph.nodes
    aliases: dict[int, int] = {}

    def storage(node: fx.Node) -> object:
        value = node.meta["val"]
        return isinstance(value, Tensor) and aliases.setdefault(value.untyped_storage()._cdata, len(aliases))

    return [
        (node.op, str(node.target), node.name, str(node.args), str(node.kwargs))
        + (() if node.op == "output" else (layout(node.meta["val"]), storage(node)))
        for node in found
    ]


@pytest.mark.parametrize("exact", [False, True])
def test_what_is_read_is_what_was_lowered(folder: Path, times_lowered: list[int], exact: bool) -> None:
    torch.manual_seed(0)
    lowered = trace(busy, inputs(), exact=exact)
    assert times_lowered == [0]
    assert len(list(folder.iterdir())) == 1
    read = trace(busy, inputs(), exact=exact)
    assert times_lowered == [0]
    assert nodes(read) == nodes(lowered)
    assert read.module.code == lowered.module.code
    draws = lowered.draw()
    ours, theirs = inputs(), inputs()
    torch.testing.assert_close(read([*ours, *draws]), lowered([*theirs, *draws]), rtol=0, atol=0)
    assert torch.equal(ours[1], torch.ones(4, dtype=torch.int64))


def test_another_process_reads_it_with_operations_of_inductor(folder: Path) -> None:
    program = (
        "import torch\n"
        "from ctde_kit.graph import lowering, trace\n"
        "made = []\n"
        "make_fx = lowering.make_fx\n"
        "lowering.make_fx = lambda *args, **kwargs: made.append(0) or make_fx(*args, **kwargs)\n"
        "graph = trace(lambda inputs: [torch.linalg.vector_norm(inputs[0], dim=-1)], [torch.ones(5, 2)])\n"
        "assert 'prims.fma' in graph.module.code\n"
        "print(len(made), graph([torch.full((5, 2), 2.0)])[0].square().tolist()[0])\n"
    )

    def run() -> str:
        return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    lowered, read = run(), run()
    assert lowered.split()[0] == "1"
    assert read.split()[0] == "0"
    assert float(read.split()[1]) == pytest.approx(8)


def test_the_compiler_finds_its_machine_code(times_lowered: list[int]) -> None:
    counters.clear()
    example = [*inputs(), torch.full((3,), 0.5)]
    first = compile_graph(trace(busy, inputs()))(list(example))
    assert counters["inductor"]["fxgraph_cache_hit"] == 0
    second = compile_graph(trace(busy, inputs()))([*inputs(), example[2]])
    assert times_lowered == [0]
    assert counters["inductor"]["fxgraph_cache_hit"] == 1
    torch.testing.assert_close(second, first, rtol=0, atol=0)


def plain(inputs: list[Tensor]) -> list[Tensor]:
    return [inputs[0] * 2 + 1]


def other(inputs: list[Tensor]) -> list[Tensor]:
    return [inputs[0] * 3 + 1]


@pytest.mark.parametrize(
    ("function", "example", "exact"),
    [
        (other, torch.ones(2, 3), False),
        (plain, torch.ones(3, 2), False),
        (plain, torch.ones(3, 2).t(), False),
        (plain, torch.ones(2, 3, dtype=torch.float64), False),
        (plain, torch.ones(2, 3), True),
    ],
    ids=["operations", "shape", "strides", "dtype", "exact"],
)
def test_another_graph_is_lowered(function: Function, example: Tensor, exact: bool, times_lowered: list[int]) -> None:
    trace(plain, [torch.ones(2, 3)])
    trace(function, [example], exact=exact)
    assert times_lowered == [0, 1]
    trace(plain, [torch.zeros(2, 3)])
    assert times_lowered == [0, 1]


def test_settings_of_torch_and_inductor_are_part_of_the_graph(times_lowered: list[int]) -> None:
    trace(plain, [torch.ones(2)])
    with inductor_config.patch({"cpp.use_decompose_tanh": not inductor_config.cpp.use_decompose_tanh}):
        trace(plain, [torch.ones(2)])
    assert times_lowered == [0, 1]
    torch.use_deterministic_algorithms(True)
    try:
        trace(plain, [torch.ones(2)])
    finally:
        torch.use_deterministic_algorithms(False)
    assert times_lowered == [0, 1, 2]


def test_constants_are_those_of_this_process(times_lowered: list[int]) -> None:
    def scaled_by(constant: Tensor) -> Function:
        return lambda inputs: [inputs[0] * (constant + 1)]

    for value in ([1.0, 2.0], [3.0, 5.0], [4.0, 4.0]):
        (found,) = trace(scaled_by(torch.tensor(value)), [torch.ones(2)])([torch.ones(2)])
        assert found.tolist() == [value[0] + 1, value[1] + 1]
    assert times_lowered == [0]


def test_what_is_torn_is_lowered_anew(folder: Path, times_lowered: list[int]) -> None:
    trace(plain, [torch.ones(2)])
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    for torn in (b"", whole[:40], b"not a pickle"):
        file.write_bytes(torn)
        assert torch.equal(trace(plain, [torch.ones(2)])([torch.ones(2)])[0], torch.full((2,), 3.0))
        assert file.read_bytes() == whole
    assert times_lowered == [0, 1, 2, 3]


def test_nothing_is_kept_without_caches(folder: Path) -> None:
    with inductor_config.patch({"force_disable_caches": True}):
        trace(plain, [torch.ones(2)])
    assert not folder.exists()


def test_operations_of_others_are_not_kept(folder: Path, times_lowered: list[int]) -> None:
    with torch.library._scoped_library("someone", "DEF") as library:
        library.define("twice(Tensor x) -> Tensor")
        library.impl("twice", lambda x: 2 * x, "CompositeExplicitAutograd")
        for _ in range(2):
            trace(lambda inputs: [torch.ops.someone.twice(inputs[0])], [torch.ones(2)])
    assert times_lowered == [0, 1]
