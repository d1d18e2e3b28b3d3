"""Means and normalization under a mask."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from ctde_kit.entries import check_mask
from ctde_kit.errors import check_choice
from ctde_kit.shards import largest_of_all, mean_of_all, mean_of_all_entries, sum_of_all

AdvantageNormalization = Literal["joint", "agent", "none"]
NORMALIZATIONS: tuple[AdvantageNormalization, ...] = get_args(AdvantageNormalization)


def masked_mean(x: Tensor, mask: Tensor | None) -> Tensor:
    """The mean of ``x`` where ``mask`` (bool, same shape; ``None``: everywhere) is true; 0 where it is true nowhere.

    Where several learners hold a part of a batch each (``ctde_kit.shards``), the mean over learners of what this
    returns is the mean over the whole batch.

    >>> import torch
    >>> from ctde_kit.objectives import masked_mean
    >>> masked_mean(torch.tensor([1.0, 3.0, torch.inf]), torch.tensor([True, True, False]))
    tensor(2.)
    """
    if mask is None:
        return mean_of_all_entries(x)
    check_mask(mask, x=x)
    return mean_of_all(x.masked_fill(~mask, 0).sum(), mask.sum())


# The squares of a batch's advantages up to this size have a sum far below float32's largest number.
LARGEST_UNSCALED = 1e12


def normalize_advantage(
    advantage: Tensor, mask: Tensor | None = None, over: AdvantageNormalization = "joint", epsilon: float = 1e-8
) -> Tensor:
    """Advantages ``[*B, n_agents, 1]`` with mean 0 and deviation 1, over all entries or over each agent's own.

    Entries outside ``mask`` (bool, same shape) are in no statistic and become 0. Entries that are all equal become 0,
    too, even where rounding makes their mean differ from them. Huge entries are scaled first, so that no square
    overflows.

    >>> import torch
    >>> from ctde_kit.objectives import normalize_advantage
    >>> advantage = torch.tensor([-3.0, -1.0, 99.0]).reshape(1, 3, 1)
    >>> alive = torch.tensor([True, True, False]).reshape(1, 3, 1)
    >>> normalize_advantage(advantage, alive).flatten()
    tensor([-0.7071,  0.7071,  0.0000])
    """
    check_choice("normalize_advantage", "over", over, NORMALIZATIONS)
    if mask is not None:
        check_mask(mask, advantage=advantage)
    if over == "none":
        return advantage if mask is None else advantage.masked_fill(~mask, 0)
    dims = tuple(d for d in range(advantage.ndim) if over == "joint" or d != advantage.ndim - 2)
    keep = advantage.new_ones(advantage.shape) if mask is None else mask.to(advantage.dtype)
    kept = advantage if mask is None else advantage.masked_fill(~mask, 0)
    outside = keep == 0
    lowest = -largest_of_all(-advantage.masked_fill(outside, math.inf).amin(dims, keepdim=True))
    highest = largest_of_all(advantage.masked_fill(outside, -math.inf).amax(dims, keepdim=True))
    largest = largest_of_all(kept.abs().amax(dims, keepdim=True))
    # Ordinary advantages are divided by 1, which changes no bit.
    kept = kept / torch.where(largest > LARGEST_UNSCALED, largest, 1)
    count = sum_of_all(keep.sum(dims, keepdim=True)).clamp(min=1)
    mean = sum_of_all(kept.sum(dims, keepdim=True)) / count
    centered = ((kept - mean) * keep).masked_fill(lowest == highest, 0)
    deviation = (sum_of_all(centered.square().sum(dims, keepdim=True)) / (count - 1).clamp(min=1)).sqrt()
    return centered / (deviation + epsilon)
