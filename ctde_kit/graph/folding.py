"""Constant folding: what a graph computes from constants alone is computed once."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import Argument, map_arg

_aten = torch.ops.aten
_FACTORIES = (_aten.full.default, _aten.zeros.default, _aten.ones.default, _aten.scalar_tensor.default)
# Entries of the largest tensor, filled with one value, that counts as a constant of its own.
_SMALL = 64


def fold_constants(module: fx.GraphModule, constants: list[Tensor]) -> None:
    """Replace the last placeholders, which stand for ``constants``, and all that follows from them alone, by values.

    Nothing in the graph may change a constant in place.
    """
    graph = module.graph
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    n_inputs = len(placeholders) - len(constants)
    known: dict[fx.Node, Argument] = dict(zip(placeholders[n_inputs:], constants, strict=True))
    for node in graph.nodes:
        if node.op == "call_function" and _is_known(node, known):
            value = node.target(*_values(node.args, known), **_values(node.kwargs, known))
            if node.all_input_nodes or value.numel() <= _SMALL:
                known[node] = value
    anchor = placeholders[n_inputs - 1] if n_inputs else None
    uniform: dict[Hashable, fx.Node] = {}
    for number, (node, value) in enumerate(known.items()):
        users = [user for user in node.users if user not in known]
        if users and isinstance(value, Tensor):
            is_output = any(user.op == "output" for user in users)  # which shares memory with no other output
            with graph.inserting_after(anchor) if anchor else graph.inserting_before(next(iter(graph.nodes))):
                constant = _constant(module, f"_constant_{number}", value, {} if is_output else uniform)
            constant.meta["val"] = node.meta["val"]
            node.replace_all_uses_with(constant, delete_user_cb=lambda user: user not in known)
    for node in reversed(list(known)):
        if not node.users:
            graph.erase_node(node)
    graph.eliminate_dead_code()
    graph.lint()
    module.recompile()


def _is_known(node: fx.Node, known: dict[fx.Node, Argument]) -> bool:
    if node.all_input_nodes:
        return all(source in known for source in node.all_input_nodes)
    return node.target in _FACTORIES


def _values(structure: Any, known: dict[fx.Node, Argument]) -> Any:  # arguments, their containers as they are
    return map_arg(structure, lambda node: known[node])


def _constant(module: fx.GraphModule, name: str, value: Tensor, uniform: dict[Hashable, fx.Node]) -> fx.Node:
    """A node for ``value``: an attribute, or, if all entries are equal, ``full``, which is kept in ``uniform``."""
    if value.numel() and _is_uniform(value):
        first = value.flatten()[0].item()
        options: dict[str, Argument] = {"dtype": value.dtype, "device": value.device, "pin_memory": False}
        key = (value.shape, value.dtype, value.device, repr(first))
        if key not in uniform:
            uniform[key] = module.graph.call_function(_aten.full.default, (list(value.shape), first), options)
        return uniform[key]
    # Names of buffers that are not persistent are a set, whose order would change inductor's cache key in each process.
    module.register_buffer(name, value)
    return module.graph.get_attr(name)


def _is_uniform(value: Tensor) -> bool:
    signs = value.signbit() if value.is_floating_point() else value  # 0.0 equals -0.0
    return all(bool((x == x.flatten()[0]).all()) for x in (value, signs))
