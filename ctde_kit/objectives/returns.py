"""Targets as pure functions of tensors ``[*B, T, n_agents, 1]``: time is the third dimension from the end.

``done`` ends an episode (its trace is cut), ``terminated`` says that nothing follows (no trace, no bootstrap): a time
limit is done and not terminated. ``next_value`` is the value of the observation before any reset.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ctde_kit.entries import check_dtypes
from ctde_kit.errors import UserError


def generalized_advantage_estimate(
    gamma: float,
    lmbda: float,
    value: Tensor,
    next_value: Tensor,
    reward: Tensor,
    done: Tensor,
    terminated: Tensor,
) -> Tensor:
    """GAE(lambda) (Schulman et al. 2016, eq. 16) by a plain loop over time, which a CPU runs fastest.

    Args:
        gamma: discount per step.
        lmbda: the trace's decay per step.
        value, next_value, reward: float ``[*B, T, n_agents, 1]``.
        done, terminated: bool of the same shape.

    Raises:
        UserError: where the shapes are not all the same, and for flags that are not bool.

    >>> import torch
    >>> from ctde_kit.objectives import generalized_advantage_estimate
    >>> one = torch.ones(2, 1, 1)
    >>> generalized_advantage_estimate(0.5, 1.0, 0 * one, 4 * one, one, one < 0, one < 0).flatten()
    tensor([4.5000, 3.0000])
    """
    _check({"value": value, "next_value": next_value, "reward": reward}, {"done": done, "terminated": terminated})
    # Filled, not multiplied: the value after a termination may be NaN, and 0 * NaN is NaN.
    delta = reward + gamma * next_value.masked_fill(terminated, 0) - value
    advantage = torch.empty_like(delta)
    trace, ends = torch.zeros_like(delta.select(-3, 0)), done | terminated
    for t in reversed(range(delta.shape[-3])):
        trace = delta.select(-3, t) + gamma * lmbda * trace.masked_fill(ends.select(-3, t), 0)
        advantage.select(-3, t).copy_(trace)
    return advantage


def td_lambda_return(
    gamma: float, lmbda: float, next_value: Tensor, reward: Tensor, done: Tensor, terminated: Tensor
) -> Tensor:
    """TD(lambda) returns (Sutton and Barto 2018, eq. 12.2), the last step of a batch bootstrapped.

    Shapes and errors as in ``generalized_advantage_estimate``; equal to GAE(lambda) plus the value.

    >>> import torch
    >>> from ctde_kit.objectives import td_lambda_return
    >>> one = torch.ones(2, 1, 1)  # two steps of one agent, neither of which ends the episode
    >>> td_lambda_return(0.5, 0.5, 4 * one, one, one < 0, one < 0).flatten()
    tensor([2.7500, 3.0000])
    """
    _check({"next_value": next_value, "reward": reward}, {"done": done, "terminated": terminated})
    target = torch.empty_like(reward)
    following = next_value.select(-3, -1)
    for t in reversed(range(reward.shape[-3])):
        value, ends = next_value.select(-3, t), done.select(-3, t)
        mixed = torch.where(ends, value, (1 - lmbda) * value + lmbda * following)
        following = reward.select(-3, t) + gamma * mixed.masked_fill(terminated.select(-3, t), 0)
        target.select(-3, t).copy_(following)
    return target


def n_step_return(gamma: float, n: int, next_value: Tensor, reward: Tensor, done: Tensor, terminated: Tensor) -> Tensor:
    """Returns over ``n`` steps, or fewer where the episode or the batch ends earlier, then bootstrapped.

    Shapes and errors as in ``generalized_advantage_estimate``; ``n`` in steps.

    >>> import torch
    >>> from ctde_kit.objectives import n_step_return
    >>> one = torch.ones(3, 1, 1)  # three steps of one agent, none of which ends the episode
    >>> n_step_return(0.5, 2, 4 * one, one, one < 0, one < 0).flatten()
    tensor([2.5000, 2.5000, 3.0000])
    """
    _check({"next_value": next_value, "reward": reward}, {"done": done, "terminated": terminated})
    if n < 1:
        raise UserError(f"n_step_return: n={n}, expected at least 1 step")
    length = reward.shape[-3]
    bootstrapped = reward + gamma * next_value.masked_fill(terminated, 0)
    target, ends = bootstrapped, done | terminated
    for _ in range(n - 1):
        later = torch.cat([target.narrow(-3, 1, length - 1), target.narrow(-3, length - 1, 1)], -3)
        longer = torch.where(ends, bootstrapped, reward + gamma * later)
        longer.select(-3, length - 1).copy_(bootstrapped.select(-3, length - 1))
        target = longer
    return target


def _check(floats: dict[str, Tensor], flags: dict[str, Tensor]) -> None:
    tensors = floats | flags
    check_dtypes("float", **floats)
    check_dtypes("bool", **flags)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1 or len(next(iter(shapes.values()))) < 3:
        raise UserError(f"targets: expected one shape [*B, T, n_agents, 1], found {shapes}; expand them first")
