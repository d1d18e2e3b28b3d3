"""Bounds of actions in the dtype in which policies write them."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def round_inward(low: Tensor, high: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The least and the greatest number of ``dtype`` within the bounds ``low`` and ``high``, tensors of any one shape.

    The nearest number may lie outside: 0.1 as float32 is 0.1000000015. A bound beyond the range of ``dtype`` becomes
    infinite; where no number of ``dtype`` lies between them, the first result is above the second.

    >>> import torch
    >>> from ctde_kit.bounds import round_inward
    >>> bound = torch.tensor(0.1, dtype=torch.float64)
    >>> low, high = round_inward(-bound, bound, torch.float32)
    >>> bool(low.double() >= -bound and high.double() <= bound and bound.float().double() > bound)
    True
    """
    least, greatest = low.to(dtype), high.to(dtype)
    return (
        torch.where((least < low) & least.isfinite(), least.nextafter(torch.full_like(least, math.inf)), least),
        torch.where(
            (greatest > high) & greatest.isfinite(), greatest.nextafter(torch.full_like(greatest, -math.inf)), greatest
        ),
    )
