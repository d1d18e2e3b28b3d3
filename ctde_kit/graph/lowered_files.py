"""Files of lowered graphs: what lowering gives, for the next process that traces the same graph."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import operator
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import PythonKeyTracer
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.fx.node import Argument, map_aggregate

# Of whose operations the code is part of the key; others may change while their names stay.
_NAMESPACES = ("aten", "prims", "ctde_kit")
_GETITEM = "getitem"
_PLAIN = (bool, int, float, complex, str, torch.dtype, torch.device, torch.layout, torch.memory_format, type(None))
# Kind, operation, name, arguments and options of a node.
Row = tuple[str, str, str, object, object]


class _NotPlainError(Exception):
    """The graph has something that cannot be written as names and numbers."""


@dataclass(frozen=True)
class _NodeNumber:
    """Stands for the node of this number."""

    number: int


@dataclass(frozen=True)
class _Layout:
    """Of a tensor; those with the same number share a storage of so many bytes."""

    dtype: torch.dtype
    device: torch.device
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    storage: int
    n_bytes: int


def lowered_file(module: fx.GraphModule, inputs: Sequence[Tensor], exact: bool) -> Path | None:
    """Where the lowered form of this graph belongs; ``None`` where it cannot be kept."""
    from torch._inductor import config as inductor_config
    from torch._inductor.codecache import torch_key
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    if inductor_config.force_disable_caches or not inductor_config.fx_graph_cache:
        return None
    try:
        graph = _rows(module)
    except _NotPlainError:
        return None
    layouts = [(x.dtype, x.device, tuple(x.shape), x.stride(), x.storage_offset()) for x in inputs]
    setting = (
        inductor_config.get_hash(),
        torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cpu.get_cpu_capability(),
    )
    key = hashlib.sha256(_own_code() + torch_key())
    key.update(repr((graph, layouts, setting, exact)).encode())
    return Path(cache_dir()) / "ctde_kit_lowered" / f"{key.hexdigest()}.pickle"


def write_lowered(file: Path, module: fx.GraphModule) -> None:
    """Keep a lowered graph, unless it has parts that a file cannot hold or the disk is full."""
    from torch._inductor.codecache import write_atomic

    with contextlib.suppress(_NotPlainError, OSError):
        storages: dict[int, int] = {}
        layouts = [_layouts(node.meta.get("val"), storages) for node in module.graph.nodes]
        write_atomic(str(file), pickle.dumps((_rows(module), layouts)), make_dirs=True)


def read_lowered(file: Path) -> fx.GraphModule | None:
    """The graph that was kept in ``file``; ``None`` where there is none, or not a whole one."""
    try:
        rows, layouts = pickle.loads(file.read_bytes())
    except (OSError, EOFError, pickle.UnpicklingError):
        return None
    importlib.import_module("torch._inductor.inductor_prims")  # defines some of the operations
    # With the tracer that has lowered it, inductor finds the machine code of the process that wrote the file.
    graph = fx.Graph(tracer_cls=PythonKeyTracer)
    nodes: list[fx.Node] = []
    mode = FakeTensorMode(allow_fallback_kernels=True, shape_env=ShapeEnv(), static_shapes=True)
    storages: dict[int, Tensor] = {}
    for (op, target, name, args, kwargs), layout in zip(rows, layouts, strict=True):
        node = graph.create_node(op, _operation(target, op), _with_nodes(args, nodes), _with_nodes(kwargs, nodes), name)
        nodes.append(node)
        if op != "output":
            node.meta["val"] = _tensors(layout, storages, mode)
    return fx.GraphModule(torch.nn.Module(), graph)


@functools.cache
def _own_code() -> bytes:
    """A digest of the kit's code, which has decompositions and operations of its own."""
    files = sorted(Path(__file__).parents[1].rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).digest()


def _rows(module: fx.GraphModule) -> list[Row]:
    """The graph as names and numbers."""
    numbers = {node: number for number, node in enumerate(module.graph.nodes)}
    return [
        (node.op, _name(node), node.name, _with_numbers(node.args, numbers), _with_numbers(node.kwargs, numbers))
        for node in module.graph.nodes
    ]


def _layouts(value: object, storages: dict[int, int]) -> object:
    """The layout of each tensor in ``value``; ``storages`` numbers their storages."""
    if isinstance(value, (tuple, list)):
        return [_layouts(x, storages) for x in value]
    if value is None:
        return None
    if not isinstance(value, Tensor):
        raise _NotPlainError
    storage = value.untyped_storage()
    number = storages.setdefault(storage._cdata, len(storages))
    shape, offset = tuple(value.shape), int(value.storage_offset())
    return _Layout(value.dtype, value.device, shape, value.stride(), offset, number, storage.nbytes())


def _tensors(layout: object, storages: dict[int, Tensor], mode: FakeTensorMode) -> object:
    """Tensors of these layouts, without values; those that shared a storage do so again."""
    if isinstance(layout, list):
        return [_tensors(x, storages, mode) for x in layout]
    if not isinstance(layout, _Layout):
        return None
    content = storages.setdefault(layout.storage, torch.empty(layout.n_bytes, dtype=torch.uint8, device="meta"))
    entries = content[: layout.n_bytes - layout.n_bytes % layout.dtype.itemsize].view(layout.dtype)
    return FakeTensor(mode, entries.as_strided(layout.shape, layout.stride, layout.offset), layout.device)


def _name(node: fx.Node) -> str:
    if node.op in ("placeholder", "output"):
        return str(node.target)
    if node.op == "call_function" and node.target is operator.getitem:
        return _GETITEM
    if isinstance(node.target, OpOverload) and node.target.namespace in _NAMESPACES:
        return str(node.target)
    raise _NotPlainError


def _operation(name: str, op: str) -> Any:
    if op != "call_function":
        return name
    return operator.getitem if name == _GETITEM else operator.attrgetter(name)(torch.ops)


def _with_numbers(arguments: Argument, numbers: dict[fx.Node, int]) -> object:
    def leaf(value: Argument) -> Any:
        if isinstance(value, fx.Node):
            return _NodeNumber(numbers[value])
        if type(value) not in _PLAIN:
            raise _NotPlainError
        return value

    return map_aggregate(arguments, leaf)


def _with_nodes(arguments: Any, nodes: list[fx.Node]) -> Any:
    return map_aggregate(arguments, lambda value: nodes[value.number] if isinstance(value, _NodeNumber) else value)
