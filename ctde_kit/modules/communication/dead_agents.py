"""Replaces what dead agents send and hear by zeros."""

from __future__ import annotations

from torch import Tensor

from ctde_kit.errors import UserError


def zero_dead(x: Tensor, mask: Tensor | None) -> Tensor:
    """``x`` ``[*B, n, F]`` with zeros where an agent is dead; ``mask`` bool ``[*B, n]``, ``None`` where all are alive.

    Raises:
        UserError: for a mask of another shape than ``[*B, n]``.

    >>> import torch
    >>> zero_dead(torch.ones(3, 1), torch.tensor([True, False, True])).flatten()
    tensor([1., 0., 1.])
    """
    if mask is None:
        return x
    if mask.shape != x.shape[:-1]:
        raise UserError(f"mask: expected {list(x.shape[:-1])}, one entry per agent, found {list(mask.shape)}")
    return x.masked_fill(~mask.unsqueeze(-1), 0)
