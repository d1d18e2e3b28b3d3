"""Means and normalization under a mask."""

from __future__ import annotations

from typing import Literal, get_args

from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor

from ctde_kit.entries import check_mask
from ctde_kit.errors import check_choice

AdvantageNormalization = Literal["joint", "agent", "none"]
NORMALIZATIONS: tuple[AdvantageNormalization, ...] = get_args(AdvantageNormalization)


def masked_mean(x: Tensor, mask: Tensor | None) -> Tensor:
    """The mean of ``x`` where ``mask`` (bool, same shape) is true; 0 where it is true nowhere.

    >>> import torch
    >>> from ctde_kit.objectives import masked_mean
    >>> masked_mean(torch.tensor([1.0, 3.0, torch.inf]), torch.tensor([True, True, False]))
    tensor(2.)
    """
    if mask is None:
        return x.mean()
    check_mask(mask, x=x)
    return x.masked_fill(~mask, 0).sum() / mask.sum().clamp(min=1)


def valid_agents(
    tensordict: TensorDictBase, mask: NestedKey, padding_mask: NestedKey, like: NestedKey
) -> Tensor | None:
    """Which agents' entries count, bool ``[*B, n_agents]``: of agents that are alive, in steps that are no padding.

    Args:
        tensordict: a batch ``[*B]``.
        mask: which agents are alive, bool ``[*B, n_agents]``; the entry may be missing.
        padding_mask: false in steps that are padding, bool ``[*B]``; the entry may be missing.
        like: an entry ``[*B, n_agents, 1]``, which says how many agents there are.

    Returns:
        ``None`` where both entries are missing: everything counts.
    """
    alive, valid = tensordict.get(mask, None), tensordict.get(padding_mask, None)
    if valid is None:
        return alive
    valid = valid.reshape(*tensordict.shape, 1)
    return valid & alive if alive is not None else valid.expand(*tensordict.get(like).shape[:-1])


def normalize_advantage(
    advantage: Tensor, mask: Tensor | None = None, over: AdvantageNormalization = "joint", epsilon: float = 1e-8
) -> Tensor:
    """Advantages ``[*B, n_agents, 1]`` with mean 0 and deviation 1, over all entries or over each agent's own.

    Entries outside ``mask`` (bool, same shape) are in no statistic and become 0.

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
    count = keep.sum(dims, keepdim=True).clamp(min=1)
    mean = kept.sum(dims, keepdim=True) / count
    centered = (kept - mean) * keep
    deviation = (centered.square().sum(dims, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
    return centered / (deviation + epsilon)
