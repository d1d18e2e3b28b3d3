"""Traces functions into graphs and compiles these, by interfaces that torch does not promise to keep."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch._guards import TracingContext, tracing
from torch._ops import OpOverload
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import (
    disable_proxy_modes_tracing,
    get_proxy_mode,
    get_proxy_slot,
    make_fx,
    track_tensor_tree,
)
from torch.fx.graph import CodeGen

from ctde_kit.graph.cpp_compiler import prepared_compiler
from ctde_kit.graph.cpp_library import use_cpp_kernels
from ctde_kit.graph.draws import DrawSpec, Source, current_source, draw_all
from ctde_kit.graph.dtype_rules import lasting_dtype_rules
from ctde_kit.graph.joined_kernels import joined_kernels
from ctde_kit.graph.lowering import lower
from ctde_kit.graph.mode import TracingMode
from ctde_kit.graph.static_buffers import Compiled, with_static_buffers
from ctde_kit.graph.toolchain import missing_toolchain, report_long_compile
from ctde_kit.graph.trace_error import TraceError
from ctde_kit.graph.vector_strides import plain_strides

Function = Callable[[list[Tensor]], Sequence[Tensor]]
# Functions of inductor are replaced meanwhile, which two threads must not do at once.
_compiling = threading.RLock()
# Inductor tries to fuse each loop with up to 64 others that use the same tensor. In a graph of 27,000 operations this
# took a quarter of the time, so graphs of more operations than _LARGE try fewer.
_FUSION_ATTEMPTS = "max_fusion_buffer_group_pairwise_attempts"
_LARGE, _FEW_ATTEMPTS = 2_000, 4


@dataclass(frozen=True)
class Graph:
    """A function of tensors as a straight list of operations.

    It changes nothing in place but inputs and live tensors, and these only where the function itself does.

    Args:
        module: takes the inputs, the drawn numbers and the live tensors; gives the outputs as a tuple.
        draws: what to draw before each call, in this order.
        live: tensors from elsewhere, which are read, and may be changed, at each call.

    >>> import torch
    >>> from ctde_kit.graph import trace
    >>> graph = trace(lambda inputs: [inputs[0] + torch.rand(2)], [torch.zeros(2)])
    >>> len(graph.draws), graph([torch.zeros(2), torch.ones(2)])
    (1, (tensor([1., 1.]),))
    """

    module: fx.GraphModule
    draws: tuple[tuple[Source | None, DrawSpec], ...]
    live: tuple[Tensor, ...]

    def draw(self) -> list[Tensor]:
        """Fresh random numbers for one call."""
        return draw_all(self.draws)

    def __call__(self, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """Run it operation by operation on the inputs and the drawn numbers."""
        return self.module(*inputs, *self.live)


def trace(function: Function, inputs: Sequence[Tensor], live: Iterable[Tensor] = (), *, exact: bool = False) -> Graph:
    """The graph of what ``function`` does to ``inputs``.

    Args:
        function: of a list of tensors.
        inputs: an example; shapes, dtypes and devices are the graph's from then on.
        live: the tensors other than inputs that the function reads and whose values change, in place, between calls,
            such as parameters. Any other tensor from elsewhere is a constant of the graph.
        exact: keep torch's kernels where a compiler's own may differ in the last bit, which is slower.

    Raises:
        TraceError: where it branches on data, turns data into Python values, or draws random numbers in a way that
            cannot be done beforehand.

    >>> import torch
    >>> from ctde_kit.graph import trace
    >>> weight = torch.ones(2)
    >>> graph = trace(lambda inputs: [inputs[0] * weight], [torch.ones(2)], live=[weight])
    >>> _ = weight.fill_(3.0)
    >>> graph([torch.ones(2)])
    (tensor([3., 3.]),)
    """
    draws: list[tuple[Source | None, DrawSpec]] = []
    try:
        # One mode for the shapes of all nodes; without it, make_fx builds another one for each operation.
        with tracing(TracingContext(FakeTensorMode(allow_fallback_kernels=True))):
            module = make_fx(_observed(function, draws), tracing_mode="real")([x.detach() for x in inputs])
    except RuntimeError as error:
        if "get value out of a tracing tensor" not in str(error):
            raise
        raise TraceError(f"turns a tensor into a Python value: {str(error).split(' - ')[0]}") from error
    _drop_profiling(module)
    used, constants = _lift_constants(module, {id(tensor) for tensor in live})
    inputs = [x.detach() for x in (*inputs, *[draw() for _, draw in draws], *used)]
    pure = lower(module, inputs, constants, exact=exact)
    _check(pure)
    return Graph(pure, tuple(draws), tuple(tensor.detach() for tensor in used))


def _observed(function: Function, draws: list[tuple[Source | None, DrawSpec]]) -> Function:
    """``function`` under a ``TracingMode`` that knows the tracer."""

    def observed(inputs: list[Tensor]) -> list[Tensor]:
        proxy_mode = get_proxy_mode()
        assert proxy_mode is not None
        tracer = proxy_mode.tracer

        def node_of(tensor: Tensor) -> fx.Node | None:
            slot = get_proxy_slot(tensor, tracer, None)
            return None if slot is None else slot.proxy.node

        def draw(spec: DrawSpec) -> Tensor:
            with disable_proxy_modes_tracing():
                value = spec()
            proxy = tracer.create_proxy("placeholder", f"draw_{len(draws)}", (), {})
            draws.append((current_source(), spec))
            track_tensor_tree(value, proxy, constant=None, tracer=tracer)
            return value

        def is_traced(tensor: Tensor) -> bool:
            slot = get_proxy_slot(tensor, tracer, None)
            return slot is not None and slot.constant is None

        def real_value(tensor: Tensor) -> bool:
            with disable_proxy_modes_tracing():
                return bool(tensor)

        expressions = _Expressions()

        def identity(tensor: Tensor) -> Hashable:
            node = node_of(tensor)
            return id(tensor) if node is None else expressions(node)

        with TracingMode(is_traced, draw, real_value, identity):
            return list(function(inputs))

    return observed


class _Expressions:
    """Gives each node a number, the same to nodes that compute the same thing."""

    def __init__(self) -> None:
        self._of_node: dict[fx.Node, int] = {}
        self._numbers: dict[Hashable, int] = {}

    def __call__(self, node: fx.Node) -> int:
        if node not in self._of_node:
            key: Hashable = node
            if node.op == "call_function":
                key = (node.target, self._key(node.args), self._key(tuple(node.kwargs.items())))
            self._of_node[node] = self._numbers.setdefault(key, len(self._numbers))
        return self._of_node[node]

    def _key(self, value: object) -> Hashable:
        if isinstance(value, fx.Node):
            return ("node", self(value))
        return tuple(map(self._key, value)) if isinstance(value, (tuple, list)) else value


def _drop_profiling(module: fx.GraphModule) -> None:
    """Remove the marks that optimizers set for torch's profiler."""
    for node in reversed(module.graph.nodes):
        if isinstance(node.target, OpOverload) and node.target.namespace == "profiler":
            module.graph.erase_node(node)


def _lift_constants(module: fx.GraphModule, live: set[int]) -> tuple[list[Tensor], list[Tensor]]:
    """Turn tensors from elsewhere into placeholders after inputs and draws; returns the live ones and the constants."""
    graph = module.graph
    graph.set_codegen(CodeGen())
    nodes = [node for node in graph.nodes if node.op == "placeholder"]
    attributes = [node for node in graph.nodes if node.op == "get_attr"]
    attributes.sort(key=lambda node: id(getattr(module, node.target)) not in live)
    lifted: dict[int, fx.Node] = {}
    tensors: list[Tensor] = []
    for node in attributes:
        tensor = getattr(module, node.target)
        if id(tensor) not in lifted:
            lifted[id(tensor)] = graph.placeholder(f"outside_{len(tensors)}")
            nodes.append(lifted[id(tensor)])
            tensors.append(tensor)
        node.replace_all_uses_with(lifted[id(tensor)])
        graph.erase_node(node)
    for node in reversed(nodes):
        next(iter(graph.nodes)).prepend(node)
    output = next(node for node in graph.nodes if node.op == "output")
    output.args = (tuple(output.args[0]),)
    graph.lint()
    module.recompile()
    used = [tensor for tensor in tensors if id(tensor) in live]
    return used, tensors[len(used) :]


def _check(module: fx.GraphModule) -> None:
    for node in module.graph.nodes:
        if node.op == "call_function" and torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            raise TraceError(f"draws random numbers inside {node.target}")


def compile_graph(graph: Graph, *, threads: int | None = None, largest: int = 50_000) -> Compiled:
    """The graph as machine code: takes a list of the inputs and the drawn numbers.

    Args:
        graph: of fixed shapes and devices.
        threads: how many threads the compiled loops use on a CPU; ``None`` for torch's own number.
        largest: the most operations that a graph may have.

    Raises:
        TraceError: where the graph has more operations than ``largest``, or no compiler is found.

    >>> import torch
    >>> from ctde_kit.graph import compile_graph, trace
    >>> compiled = compile_graph(trace(lambda inputs: [2 * inputs[0] + 1], [torch.ones(2)]))
    >>> compiled([torch.tensor([1.0, 2.0])])
    [tensor([3., 5.])]
    """
    # Inductor takes as long to import as torch itself, and a run without compiling never needs it.
    from torch._inductor import config as inductor_config
    from torch._inductor.compile_fx import compile_fx_inner

    missing = missing_toolchain()
    if missing is not None:
        raise TraceError(missing)
    operations = len(graph.module.graph.nodes)
    if operations > largest:
        raise TraceError(f"its graph has {operations} operations, more than {largest}")
    report_long_compile(operations)
    placeholders = [node.meta["val"] for node in graph.module.graph.nodes if node.op == "placeholder"]
    # Tanh by way of exp is three times as fast as a vector library's, and as precise.
    options = {"cpp.threads": threads or -1, "triton.cudagraphs": True, "cpp.use_decompose_tanh": True}
    if operations > _LARGE and hasattr(inductor_config, _FUSION_ATTEMPTS):
        options[_FUSION_ATTEMPTS] = _FEW_ATTEMPTS
    on_cpu = all(placeholder.device.type == "cpu" for placeholder in placeholders)
    if on_cpu and hasattr(inductor_config, "graph_partition"):
        options["graph_partition"] = False  # of use to CUDA graphs alone
    fake_mode = placeholders[0].fake_mode
    fake_mode.allow_non_fake_inputs = True  # the constants
    context = TracingContext(fake_mode)
    with (
        _compiling,
        torch.no_grad(),
        tracing(context),
        inductor_config.patch(options),
        plain_strides(),
        lasting_dtype_rules(),
        joined_kernels(),
        prepared_compiler(),
    ):
        use_cpp_kernels(graph.module)
        # Live tensors stay where they are: a CUDA graph reads and changes them in place.
        fixed = range(len(placeholders) - len(graph.live), len(placeholders))
        compiled: Any = compile_fx_inner(graph.module, placeholders, static_input_idxs=fixed)
    if on_cpu:
        compiled = with_static_buffers(compiled)
    live = graph.live
    return lambda inputs: compiled([*inputs, *live])
