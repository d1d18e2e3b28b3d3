"""Importance weights and priorities of prioritized replay."""

from __future__ import annotations

from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor

from ctde_kit.shards import sum_over_agents

# Weight of a sequence's largest error in its priority; the mean error has the rest.
MAX_SHARE = 0.9


def importance_weight(tensordict: TensorDictBase, key: NestedKey, burn_in: int = 0) -> Tensor | float:
    """The importance weights, in a shape that multiplies entries ``[*B, T, n, 1]`` after the burn-in; 1 without any."""
    weight = tensordict.get(key, None)
    if weight is None:
        return 1.0
    if tensordict.ndim == 1:
        return weight.reshape(-1, 1, 1, 1)
    weight = weight.expand(tensordict.shape) if weight.ndim == tensordict.ndim else weight.unsqueeze(-1)
    return weight.expand(tensordict.shape)[..., burn_in:, None, None]


def write_priority(tensordict: TensorDictBase, error: Tensor, mask: Tensor, key: NestedKey) -> None:
    """Write the priority of each transition or sequence at ``key``, from absolute errors ``[*B, T, n, 1]``.

    A transition's priority is the mean error over agents. A sequence's is one number, written in every step: 0.9 times
    the largest of its steps' mean errors, plus 0.1 times their mean (Kapturowski et al. 2019, section 2.3). ``error``
    is 0 where ``mask`` (bool, same shape) is false.
    """
    count = sum_over_agents(mask.sum((-2, -1)))
    step = sum_over_agents(error.sum((-2, -1))) / count.clamp(min=1)
    if tensordict.ndim == 1:
        priority = step.squeeze(-1)
    else:
        mean = step.sum(-1) / (count > 0).sum(-1).clamp(min=1)
        priority = MAX_SHARE * step.amax(-1) + (1 - MAX_SHARE) * mean
        priority = priority.unsqueeze(-1).expand(tensordict.shape)
    tensordict.set(key, priority)
