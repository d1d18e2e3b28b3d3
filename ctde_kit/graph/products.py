"""Matrix products in the form in which CPUs compute them fastest."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch._ops import OpOverload

Rule = Callable[..., object]
aten = torch.ops.aten
# MKL takes as long for 2 to 15 columns as for 64; for as many rows it does not. One column is a product of its own.
NARROW = range(2, 16)


def narrow_product(usual: Mapping[OpOverload, Rule]) -> Rule:
    """A decomposition of ``aten.mm`` which computes float32 products of long rows with few columns transposed, on CPUs.

    The gradient of the weights of a layer with few outputs is such a product, and takes a third to an eighth of the
    time then. The last bits of its result change.

    Args:
        usual: the decompositions for all other products.
    """

    def mm(a: Tensor, b: Tensor, **kwargs: object) -> object:
        plain = a.device.type == "cpu" and a.dtype == torch.float32 and not kwargs
        if plain and b.shape[1] in NARROW and a.shape[1] > a.shape[0] > NARROW[-1]:
            return aten.mm(b.t(), a.t()).t().contiguous()
        rule = usual.get(aten.mm.default)
        return NotImplemented if rule is None else rule(a, b, **kwargs)

    return mm
