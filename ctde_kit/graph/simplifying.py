"""Removes what a graph computes twice, and nodes that only name or copy a tensor: each of them costs compile time."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
_VIEWS = (aten.alias.default, aten.detach.default, aten.expand.default, aten.view.default)


def drop_same_views(module: fx.GraphModule) -> None:
    """Remove views that have the shape of what they show, and nodes that nothing uses.

    The graph may change tensors in place. If it changes the shape of one in place, all views stay.

    >>> import torch
    >>> from torch.fx.experimental.proxy_tensor import make_fx
    >>> from ctde_kit.graph.simplifying import drop_same_views
    >>> module = make_fx(lambda x: x.neg().view(2).mul_(3))(torch.ones(2))
    >>> drop_same_views(module)
    >>> [node.name for node in module.graph.nodes]
    ['x_1', 'neg', 'mul_', 'output']
    """
    reshapes = any(torch.Tag.inplace_view in getattr(node.target, "tags", ()) for node in module.graph.nodes)
    for node in module.graph.nodes:
        if not reshapes and node.target in _VIEWS and _alike(node, node.args[0]):
            _replace(node, node.args[0])
    module.graph.eliminate_dead_code()
    module.recompile()


def merge_equal(module: fx.GraphModule) -> None:
    """Compute each expression once, and drop copies, in a graph that changes nothing in place before its end.

    An output that shares memory with no input and no other output still does not. What the last operations write into
    inputs are the values that it would have been.

    >>> import torch
    >>> from torch.fx.experimental.proxy_tensor import make_fx
    >>> from ctde_kit.graph.simplifying import merge_equal
    >>> module = make_fx(lambda x: (x.sin() * x.sin().clone(),), tracing_mode="fake")(torch.ones(2))
    >>> merge_equal(module)
    >>> [node.name for node in module.graph.nodes]
    ['x_1', 'sin', 'mul', 'output']
    """
    nodes = module.graph.nodes
    outputs = _storages(module.graph.output_node().all_input_nodes)
    changed = _storages(node.args[0] for node in nodes if node.target is aten.copy_.default)
    for node in nodes:
        source = _copied(node)
        if source is None or not _alike(node, source):
            continue
        if _storages([source]) & changed:
            _compute(module.graph, node, source)
        elif not _storages([node]) & outputs:
            _replace(node, source)
    _merge(module.graph, outputs)
    module.graph.eliminate_dead_code()
    module.recompile()


def _compute(graph: fx.Graph, node: fx.Node, source: fx.Node) -> None:
    """Put a product with one in the place of a copy: inductor drops copies of what changes after they were made."""
    dtype = source.meta["val"].dtype
    if node.target in _VIEWS or dtype.is_complex:
        return
    with graph.inserting_before(node):
        operation, other = (aten.logical_or.default, source) if dtype == torch.bool else (aten.mul.Tensor, 1)
        product = graph.call_function(operation, (source, other))
    product.meta = dict(node.meta)
    _replace(node, product)


def _merge(graph: fx.Graph, outputs: set[int]) -> None:
    first: dict[tuple[object, str, str], fx.Node] = {}
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        if node.is_impure():  # draws, or changes a tensor
            first.clear()
            continue
        # The representation has names of nodes, and tells 0.0 from -0.0, and 1 from True, which are equal.
        key = (node.target, repr(node.args), repr(node.kwargs))
        same = first.setdefault(key, node)
        if same is not node and not _storages([node]) & outputs:
            _replace(node, same)


def _replace(node: fx.Node, other: fx.Node) -> None:
    node.replace_all_uses_with(other)
    node.graph.erase_node(node)


def _copied(node: fx.Node) -> fx.Node | None:
    """What the values of ``node`` are a copy of."""
    place = 1 if node.target is aten.copy.default else 0
    source = node.args[place] if node.target in (*_VIEWS, aten.clone.default, aten.copy.default) else None
    return source if isinstance(source, fx.Node) else None


def _alike(node: fx.Node, source: fx.Node) -> bool:
    """Whether both are tensors of one layout; of tensors from outside of the graph it is not known."""
    return "val" in source.meta and _layout(node.meta["val"]) == _layout(source.meta["val"])


def _layout(x: Tensor) -> tuple[object, ...]:
    return x.shape, x.stride(), x.storage_offset(), x.dtype, x.device, x.is_conj(), x.is_neg()


def _storages(nodes: Iterable[fx.Node]) -> set[int]:
    values = tree_leaves([node.meta.get("val") for node in nodes])
    return {value.untyped_storage()._cdata for value in values if isinstance(value, Tensor)}
