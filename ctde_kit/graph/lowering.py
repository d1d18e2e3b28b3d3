"""Lowers traced graphs to what a compiler takes: nothing changes in place, large operations are small ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, make_fx

from ctde_kit.graph.folding import fold_constants
from ctde_kit.graph.lowered_files import lowered_file, read_lowered, write_lowered
from ctde_kit.graph.rounding import decompositions, keep_kernels
from ctde_kit.graph.simplifying import drop_same_views, merge_equal


def lower(module: fx.GraphModule, inputs: Sequence[Tensor], constants: list[Tensor], *, exact: bool) -> fx.GraphModule:
    """The same function without changes in place other than of its inputs, and with constants folded.

    Lowering takes more time than all else in a run whose machine code is in inductor's cache. Therefore what it gives
    is kept on the disk, beside that cache, and is read where the same graph is lowered again.

    Args:
        module: takes the inputs, then the constants.
        inputs: an example.
        constants: what the last placeholders stand for.
        exact: keep torch's kernels where a compiler's own may differ in the last bit.
    """
    example = [*inputs, *constants]
    # What autocast casts, the first pass has recorded.
    with disable_proxy_modes_tracing(), torch.no_grad(), torch._C._DisableAutocast():
        drop_same_views(module)
        file = lowered_file(module, example, exact)
        pure = None if file is None else read_lowered(file)
        if pure is None:
            pure = make_fx(
                functionalize(lambda *arguments: module(*arguments)),
                decomposition_table=decompositions(exact),
                tracing_mode="fake",
            )(*example)
            merge_equal(pure)
            if file is not None:
                write_lowered(file, pure)
        fold_constants(pure, constants)
    if exact:
        keep_kernels(pure)
    return pure
