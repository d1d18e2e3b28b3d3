"""What critics of actions learn: values, their targets, and which of them count."""

from __future__ import annotations

from collections.abc import Callable

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor

from ctde_kit.keys import DONE, NEXT, TERMINATED, next_key
from ctde_kit.objectives.learnt_values import LearntValues
from ctde_kit.objectives.masking import agent_flags, check_same_shape, required_entry
from ctde_kit.objectives.shared_reward import shared_reward
from ctde_kit.objectives.unroll import trace_ends
from ctde_kit.specs import GroupSpec

Target = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def counted(steps: TensorDictBase, group: GroupSpec | None, padding_mask: NestedKey) -> Tensor:
    """What counts, bool ``[*B, T, n_agents, 1]``, of the team ``[*B, T, 1, 1]``: no padding, nobody dead."""
    n_agents = 1 if group is None else group.n_agents
    mask = torch.ones(*steps.shape, n_agents, 1, dtype=torch.bool, device=steps.get((NEXT, DONE)).device)
    valid = steps.get(padding_mask, None)
    mask = mask if valid is None else mask & valid.reshape(*steps.shape, 1, 1)
    return mask & steps.get(group.keys.mask).unsqueeze(-1) if group is not None and group.mask else mask


def learnt_by_group(
    target: Target,
    group: GroupSpec,
    steps: TensorDictBase,
    value: Tensor,
    next_value: Tensor,
    *,
    team_weight: float,
    mask: Tensor,
) -> LearntValues:
    """Each agent's value learns from its own reward and its own end.

    Args:
        target: of next values, rewards, ends of the trace and terminations.
        group: whose values they are.
        steps: ``[*B, T]``, with rewards and flags under ``next``.
        value: ``[*B, T, n_agents, 1]``, like ``next_value`` and ``mask``.
        next_value: of what follows.
        team_weight: the share of the group's mean in each agent's reward.
        mask: what counts.
    """
    reward = required_entry(steps, next_key(group.keys.reward), "the env must write it for each agent")
    check_same_shape(reward=reward, mask=mask)
    flags = agent_flags(steps, group.keys, reward)
    return _pair(target, steps, value, next_value, shared_reward(reward, team_weight, mask), flags, mask)


def learnt_by_team(
    target: Target, steps: TensorDictBase, value: Tensor, next_value: Tensor, *, reward: NestedKey, mask: Tensor
) -> LearntValues:
    """The team's value ``[*B, T, 1, 1]`` learns from the team's ``reward`` and end; else as ``learnt_by_group``."""
    done, terminated = (
        required_entry(steps, (NEXT, flag), "the env must write it, shape [*B, 1]").unsqueeze(-2)
        for flag in (DONE, TERMINATED)
    )
    rewards = required_entry(steps, (NEXT, reward), "TeamReward writes the team's").unsqueeze(-2)
    return _pair(target, steps, value, next_value, rewards, (done, terminated), mask)


def _pair(
    target: Target,
    steps: TensorDictBase,
    value: Tensor,
    next_value: Tensor,
    reward: Tensor,
    flags: tuple[Tensor, Tensor],
    mask: Tensor,
) -> LearntValues:
    done, terminated = flags
    check_same_shape(value=value, next_value=next_value, reward=reward, done=done)
    found = target(next_value, reward.masked_fill(~mask, 0), trace_ends(steps, done), terminated)
    return LearntValues(value, found.masked_fill(~mask, 0), mask)
