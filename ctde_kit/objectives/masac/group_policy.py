"""Samples and distributions of the current policies, at each step of a batch and at the states after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torch.distributions import Distribution

from ctde_kit.keys import next_key
from ctde_kit.objectives.maddpg.joint_actions import LearningActor, zero_dead
from ctde_kit.objectives.maddpg.next_values import next_policy
from ctde_kit.objectives.masac.own_actions import OwnActions, own_actions, sampled_vector
from ctde_kit.objectives.masking import masked_mean


class StochasticActor(LearningActor, Protocol):
    """What MASAC's loss uses of the actor of a group that learns, such as ``MultiAgentActor``."""

    def build_dist_from_params(self, tensordict: TensorDictBase, /) -> Distribution:
        """The distribution of its actions, from its network's output and the action mask in ``tensordict``."""
        ...


@dataclass(frozen=True)
class GroupPolicy:
    """A group's current policy along a batch ``[*B, T]``.

    Args:
        actor: of the group.
        parameters: its network's output, and the action mask where the group has one.
        own: the actions over which the expectation of an agent's policy is taken.
        sample: one action of each agent, a vector ``[*B, T, n_agents, D]`` without a gradient; ``None``: not drawn.
    """

    actor: StochasticActor
    parameters: TensorDictBase
    own: OwnActions
    sample: Tensor | None


def current_policies(
    learners: Mapping[str, StochasticActor],
    steps: TensorDictBase,
    outputs: Mapping[str, TensorDictBase],
    *,
    draws: bool,
) -> dict[str, GroupPolicy]:
    """The current policies at ``steps``, by group, from what their networks wrote there; ``draws``: with samples."""
    policies: dict[str, GroupPolicy] = {}
    for name, actor in learners.items():
        group, parameters = actor.group, outputs[name].copy()
        if group.action_mask:
            parameters.set(group.keys.action_mask, steps.get(group.keys.action_mask))
        policies[name] = _group_policy(actor, parameters, draws=draws)
    return policies


def next_policies(
    learners: Mapping[str, StochasticActor], steps: TensorDictBase, outputs: Mapping[str, TensorDictBase]
) -> dict[str, GroupPolicy]:
    """The current policies at the states after ``steps``, with samples, by group."""
    return {
        name: _group_policy(actor, next_policy(actor, actor.agent_network, steps, outputs[name]), draws=True)
        for name, actor in learners.items()
    }


def samples(policies: Mapping[str, GroupPolicy]) -> dict[str, Tensor]:
    """The actions that were drawn, by group."""
    return {name: policy.sample for name, policy in policies.items() if policy.sample is not None}


def alive_at_next(policies: Mapping[str, GroupPolicy], following: TensorDictBase) -> dict[str, Tensor]:
    """Which agents are bootstrapped after each step, bool ``[*B, T, n_agents, 1]`` by group; all where none die.

    ``following`` holds what ``with_next_actions`` wrote.
    """
    alive: dict[str, Tensor] = {}
    for name, policy in policies.items():
        keys = policy.actor.group.keys
        if policy.actor.group.mask:
            alive[name] = following.get(next_key(keys.mask)).unsqueeze(-1)
        else:
            alive[name] = torch.ones_like(following.get(next_key(keys.action_vector))[..., :1], dtype=torch.bool)
    return alive


def with_current_actions(policies: Mapping[str, GroupPolicy], steps: TensorDictBase) -> TensorDictBase:
    """A copy of ``steps`` with the actions that were drawn in place of the stored ones; zero for dead agents."""
    inputs = steps.copy()
    for name, vector in samples(policies).items():
        keys = policies[name].actor.group.keys
        inputs.set(keys.action_vector, zero_dead(vector, steps.get(keys.mask, None)))
    return inputs


@torch.no_grad()
def policy_metrics(
    alpha: Mapping[str, Tensor],
    own: Mapping[str, OwnActions],
    bounds: Mapping[str, Tensor],
    valid: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """The means over groups of temperature, entropy and mutual information; with several groups also each group's.

    Args:
        alpha: of each group.
        own: of each group.
        bounds: of each group's mutual information, ``[K, *B, T, n_agents, 1]``; empty where there is none.
        valid: which agents are alive in which valid steps, bool ``[*B, T, n_agents, 1]``.
    """
    by_name = {"alpha": alpha, "entropy": {name: masked_mean(a.entropy, valid[name]) for name, a in own.items()}}
    if bounds:
        information = {name: masked_mean(own[name].mean(bound), valid[name]) for name, bound in bounds.items()}
        by_name["mutual_information"] = information
    metrics = {name: torch.stack([*by_group.values()]).mean() for name, by_group in by_name.items()}
    if len(own) == 1:
        return metrics
    return metrics | {f"{group}/{name}": by_name[name][group] for group in own for name in by_name}


def _group_policy(actor: StochasticActor, parameters: TensorDictBase, *, draws: bool) -> GroupPolicy:
    dist, spec = actor.build_dist_from_params(parameters), actor.group.action
    own = own_actions(spec, dist)
    return GroupPolicy(actor, parameters, own, sampled_vector(spec, dist, own) if draws else None)
