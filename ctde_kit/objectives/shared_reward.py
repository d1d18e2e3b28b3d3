"""A weighted mean of each agent's own reward and its group's mean reward."""

from __future__ import annotations

import torch
from torch import Tensor

from ctde_kit.entries import check_dtypes, check_mask


def shared_reward(reward: Tensor, weight: float, alive: Tensor | None = None) -> Tensor:
    """``1 - weight`` times each agent's own reward ``[*B, n_agents, 1]``, plus ``weight`` times its group's mean.

    The mean is over agents that are ``alive`` (bool, same shape); dead agents' rewards become 0.

    >>> import torch
    >>> from ctde_kit.objectives import shared_reward
    >>> shared_reward(torch.tensor([[1.0], [3.0]]), 0.5).flatten()
    tensor([1.5000, 2.5000])
    """
    check_dtypes("float", reward=reward)
    if alive is None:
        return torch.lerp(reward, reward.mean(-2, keepdim=True).expand_as(reward), weight)
    check_mask(alive, reward=reward)
    reward = reward.masked_fill(~alive, 0)
    mean = reward.sum(-2, keepdim=True) / alive.sum(-2, keepdim=True).clamp(min=1)
    return torch.lerp(reward, mean.expand_as(reward), weight).masked_fill(~alive, 0)
