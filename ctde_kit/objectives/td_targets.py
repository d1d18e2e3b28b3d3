"""Temporal-difference targets of action values, per group or of the team, with the mask of valid entries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor

from ctde_kit.entries import agent_flags, check_same_shape, required_entry
from ctde_kit.entry_tables import as_key
from ctde_kit.keys import DONE, NEXT, TERMINATED, next_key
from ctde_kit.objectives.shared_reward import shared_reward
from ctde_kit.objectives.unroll import trace_ends
from ctde_kit.objectives.value_targets import ValueTargets
from ctde_kit.shards import own_agents
from ctde_kit.specs import GroupSpec

Returns = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def living_mask(steps: TensorDictBase, group: GroupSpec | None, padding_mask: NestedKey) -> Tensor:
    """Where a group's agents are alive and the step is no padding, bool ``[*B, T, n_agents, 1]``.

    With ``group=None`` it is the team's, ``[*B, T, 1, 1]``: padding alone.
    """
    done = required_entry(steps, (NEXT, DONE), "the env must write it, shape [*B, 1]")
    n_agents = 1 if group is None else group.n_agents
    mask = torch.ones(*steps.shape, n_agents, 1, dtype=torch.bool, device=done.device)
    valid = steps.get(padding_mask, None)
    mask = mask if valid is None else mask & valid.reshape(*steps.shape, 1, 1)
    return mask & steps.get(group.keys.mask).unsqueeze(-1) if group is not None and group.mask else mask


def valid_mask(steps: TensorDictBase, group: GroupSpec | None, padding_mask: NestedKey) -> Tensor:
    """What is learned from: the ``living_mask`` of this learner's agents, where learners share those of one batch."""
    mask = living_mask(steps, group, padding_mask)
    own = None if group is None else own_agents(group.name)
    if own is None:
        return mask
    is_own = torch.zeros(mask.shape[-2:], dtype=torch.bool, device=mask.device)
    is_own[own] = True
    return mask & is_own


def td_targets(
    returns: Returns,
    groups: Iterable[GroupSpec],
    steps: TensorDictBase,
    values: Mapping[str, Tensor],
    next_values: Mapping[str, Tensor],
    *,
    padding_mask: NestedKey,
    team_weight: float = 0.0,
) -> dict[str, ValueTargets]:
    """Each agent's targets, by group, from its own reward; its own and the team's flags end its returns.

    Args:
        returns: computes targets from next values, rewards, ends of the trace and terminations.
        groups: the groups whose agents' values are learned.
        steps: ``[*B, T]``, with rewards and flags under ``next``.
        values: of each group, ``[*B, T, n_agents, 1]``.
        next_values: of the next observations, same shapes.
        padding_mask: the key of the mask that is false where a sequence is padded.
        team_weight: the share of the group's mean in each agent's reward.
    """
    targets = {}
    for group in groups:
        mask = valid_mask(steps, group, padding_mask)
        reward = required_entry(steps, next_key(group.keys.reward), "the env must write it for each agent")
        check_same_shape(reward=reward, mask=mask)
        flags = agent_flags(steps, group.keys, reward)
        if team_weight:
            reward = shared_reward(reward, team_weight, living_mask(steps, group, padding_mask))
        value, next_value = values[group.name], next_values[group.name]
        check_same_shape(value=value, next_value=next_value)
        target = _returns(returns, steps, next_value, reward, *flags, mask, padding_mask=padding_mask)
        targets[group.name] = ValueTargets(value, target, mask)
    return targets


def team_td_targets(
    returns: Returns,
    steps: TensorDictBase,
    value: Tensor,
    next_value: Tensor,
    *,
    reward: NestedKey,
    padding_mask: NestedKey,
) -> ValueTargets:
    """Targets of the team's value ``[*B, T, 1, 1]``, from the team's ``reward`` and flags, as in ``td_targets``."""
    target = team_returns(returns, steps, next_value, reward=reward, padding_mask=padding_mask)
    return ValueTargets(value, target, valid_mask(steps, None, padding_mask))


def team_returns(
    returns: Returns, steps: TensorDictBase, next_value: Tensor, *, reward: NestedKey, padding_mask: NestedKey
) -> Tensor:
    """The team's returns ``[*B, T, n, 1]``, one for each of ``n`` next values of the same shape; 0 in padding.

    The team's ``reward`` and flags are those of all ``n``.
    """
    entries = {
        (NEXT, DONE): "the env must write it, shape [*B, 1]",
        (NEXT, TERMINATED): "the env must write it, shape [*B, 1]",
        next_key(as_key(reward)): "TeamReward writes it",
    }
    done, terminated, rewards = (required_entry(steps, key, advice).unsqueeze(-2) for key, advice in entries.items())
    mask = valid_mask(steps, None, padding_mask)
    of_all = (entry.expand_as(next_value) for entry in (rewards, done, terminated, mask))
    return _returns(returns, steps, next_value, *of_all, padding_mask=padding_mask)


@torch.no_grad()
def _returns(
    returns: Returns,
    steps: TensorDictBase,
    next_value: Tensor,
    reward: Tensor,
    done: Tensor,
    terminated: Tensor,
    mask: Tensor,
    *,
    padding_mask: NestedKey,
) -> Tensor:
    """The returns, 0 outside ``mask``; all tensors are ``[*B, T, n, 1]``."""
    check_same_shape(next_value=next_value, reward=reward, done=done)
    target = returns(next_value, reward.masked_fill(~mask, 0), trace_ends(steps, done, padding_mask), terminated)
    return target.masked_fill(~mask, 0)
