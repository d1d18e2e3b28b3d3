"""Operations in a graph that must round as torch's own kernels do, since stiff physics amplifies the last bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, fx
from torch._ops import OpOverload

Dims = int | Sequence[int] | None
aten = torch.ops.aten
# Torch's kernels for these come from vector libraries, whose last bit differs from a compiler's.
DIFFERENT = (
    aten.atan2.default,
    aten.cos.default,
    aten.exp.default,
    aten.linalg_vector_norm.default,
    aten.log.default,
    aten.log1p.default,
    aten.logaddexp.default,
    aten.mean.dim,
    aten.sin.default,
    aten.sqrt.default,
    aten.sum.dim_IntList,
    aten.tanh.default,
)
# Over fewer entries than this, torch's kernel for the norm adds the squares one by one.
LONG = 8


def decompositions(exact: bool) -> dict[OpOverload, Callable[..., object]]:
    """Inductor's decompositions, with norms that round as torch's; if ``exact``, without those of ``DIFFERENT``."""
    from torch._inductor.decomposition import select_decomp_table

    table = dict(select_decomp_table())
    usual = table[aten.linalg_vector_norm.default]

    def norm(
        x: Tensor, ord: float = 2, dim: Dims = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
    ) -> object:
        return _short_norm(x, keepdim) if _is_short(x, ord, dim, dtype) else usual(x, ord, dim, keepdim, dtype=dtype)

    table[aten.linalg_vector_norm.default] = norm
    return {op: rule for op, rule in table.items() if not exact or op not in DIFFERENT}


def _is_short(x: Tensor, ord: float, dim: Dims, dtype: torch.dtype | None) -> bool:
    """Whether this is a float32 2-norm on a CPU over the last, dense dimension, which has few entries."""
    dims = [dim] if isinstance(dim, int) else dim
    dense = x.ndim > 0 and x.stride(-1) == 1 and x.shape[-1] < LONG
    usual = ord == 2 and x.dtype == torch.float32 and dtype is None and x.device.type == "cpu"
    return dense and usual and dims is not None and [d % x.ndim for d in dims] == [x.ndim - 1]


def _short_norm(x: Tensor, keepdim: bool) -> Tensor:
    """The norm as torch's kernel computes it: every square but the first is added by fused multiply-add."""
    from torch._inductor.inductor_prims import fma

    first, *others = x.unbind(-1)
    total = first * first
    for part in others:
        total = fma(part, part, total)
    return total.sqrt().unsqueeze(-1) if keepdim else total.sqrt()


def keep_kernels(module: fx.GraphModule) -> None:
    """Make inductor call torch's kernels for the operations of ``DIFFERENT``, instead of compiling its own."""
    for node in module.graph.nodes:
        if node.op == "call_function":
            node.target = _OPAQUE.get(node.target, node.target)
    module.recompile()


def _opaque(library: torch.library.Library, op: OpOverload) -> OpOverload:
    """An operation that inductor does not know, and that does what ``op`` does."""
    name, arguments = str(op._schema).removeprefix("aten::").split("(", 1)
    name = name.replace(".", "_")
    library.define(f"{name}({arguments}")
    library.impl(name, lambda *args, **kwargs: op(*args, **kwargs), "CompositeExplicitAutograd")
    return getattr(getattr(torch.ops, library.ns), name).default


_LIBRARY = torch.library.Library("ctde_kit", "DEF")
_OPAQUE = {op: _opaque(_LIBRARY, op) for op in DIFFERENT}
