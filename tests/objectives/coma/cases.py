"""COMA's losses on a small team, and what they must be: plain loops with the paper's formulas."""

from __future__ import annotations

import math
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from ctde_kit.modules import EpsilonFloor, MultiAgentActor, TeamPolicy, counterfactual_critic, own_observation
from ctde_kit.objectives import COMACriticLoss
from ctde_kit.specs import GroupSpec, TeamSpec
from tests.contracts.fakes import collect, endings, group_spec, make_network

GAMMA, EPSILON = 0.9, 0.3


def herd(kind: str = "categorical", state_dim: int | None = 10) -> TeamSpec:
    """Wolves that die and may not do everything, and sheep of which neither is so."""
    wolves = group_spec("wolves", 3, kind, mask=True, action_mask=True, state_dim=11)
    return TeamSpec((wolves, group_spec("sheep", 2, kind, observation_dim=8, state_dim=13)), state_dim)


def make_floored(group: GroupSpec, recurrent: bool = False, epsilon: float | None = EPSILON) -> MultiAgentActor:
    """A small actor of a group, whose agents have weights of their own."""
    network = make_network(recurrent, False)(group.observation_dim, group.action.n_parameters, group.n_agents)
    floor = None if epsilon is None else EpsilonFloor(group, epsilon)
    return MultiAgentActor(group, own_observation(group), network, floor=floor)


def make(team: TeamSpec, recurrent: bool = False, **critic: Any) -> tuple[TeamPolicy, dict[str, COMACriticLoss]]:
    """The policies and critic losses of all groups; target critics are others than the critics."""
    policy = TeamPolicy({group.name: make_floored(group, recurrent) for group in team})
    losses = {
        group.name: COMACriticLoss(counterfactual_critic(team, group, make_network(False), **critic)) for group in team
    }
    for loss in losses.values():
        for parameter in loss.target_networks.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return policy, losses


def rollout(team: TeamSpec, policy: TeamPolicy) -> TensorDictBase:
    """A batch ``[n_envs, T]`` in which episodes terminate and are truncated, with a reward of the team."""
    actors: dict[str, Any] = policy.actors
    batch, _ = collect(team, actors, *endings())
    batch["next", "reward"] = torch.randn(*batch.shape, 1)
    return batch


def rows(batch: TensorDictBase, team: TeamSpec, group: GroupSpec, sees: str = "team") -> Tensor:
    """What a critic in the team's order reads for each agent, ``[*B, n_agents, F]``, put together by hand."""
    result: list[Tensor] = []
    for agent in range(group.n_agents):
        row = [] if sees == "team" else [batch["state"]]
        if sees == "agent_state":
            row = [batch[group.name, "state"][..., agent, :] * _alive(batch, group)[..., agent, None]]
        for other in team if sees == "team" else ():
            for i in range(other.n_agents):
                row.append(batch[other.name, "observation"][..., i, :] * _alive(batch, other)[..., i, None])
        for other in team:
            for i in range(other.n_agents):
                hot = other.action.vector(batch[other.name, "action"])[..., i, :] * _alive(batch, other)[..., i, None]
                row.append(torch.zeros_like(hot) if (other.name, i) == (group.name, agent) else hot)
        row.append(torch.eye(group.n_agents)[agent].expand(*batch.shape, group.n_agents))
        result.append(torch.cat(row, -1))
    return torch.stack(result, -2)


def _alive(batch: TensorDictBase, group: GroupSpec) -> Tensor:
    if group.mask:
        return batch[group.name, "mask"].to(torch.get_default_dtype())
    return torch.ones(*batch.shape, group.n_agents)


def probabilities(logits: Tensor, allowed: Tensor | None, epsilon: float) -> Tensor:
    """The bounded softmax ``[A]`` of one agent's logits, entry by entry."""
    may = [True] * len(logits) if allowed is None else [bool(one) for one in allowed]
    if not any(may):
        may[0] = True
    weights = [logit.exp() if one else torch.zeros(()) for logit, one in zip(logits, may, strict=True)]
    total = torch.stack(weights).sum()
    return torch.stack(
        [
            (1 - epsilon) * weight / total + epsilon / sum(may) if one else torch.zeros(())
            for weight, one in zip(weights, may, strict=True)
        ]
    )


def index(group: GroupSpec, batch: TensorDictBase) -> Tensor:
    """Which action each agent took, ``[*B, n_agents]``."""
    action = batch[group.name, "action"]
    return action.argmax(-1) if group.action.kind == "one_hot" else action


def actor_loss(
    batch: TensorDictBase, group: GroupSpec, logits: Tensor, values: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """``-mean log pi(u) A`` and the mean entropy, over living agents, one agent and step at a time."""
    gains, entropies = [], []
    taken = index(group, batch)
    for env in range(batch.shape[0]):
        for t in range(batch.shape[1]):
            for i in range(group.n_agents):
                if group.mask and not batch[group.name, "mask"][env, t, i]:
                    continue
                allowed = batch[group.name, "action_mask"][env, t, i] if group.action_mask else None
                pi = probabilities(logits[env, t, i], allowed, epsilon)
                p, q = pi.tolist(), values[env, t, i].tolist()
                baseline = sum(p[a] * q[a] for a in range(len(p)) if p[a] > 0)
                chosen = int(taken[env, t, i])
                gains.append(pi[chosen].log() * (q[chosen] - baseline))
                entropies.append(-torch.stack([pi[a] * pi[a].log() for a in range(len(p)) if p[a] > 0]).sum())
    return -torch.stack(gains).mean(), torch.stack(entropies).mean()


def targets(
    batch: TensorDictBase, next_value: Tensor, lmbda: float, length: int, is_end: Tensor, nothing_follows: Tensor
) -> Tensor:
    """``y_t = r_t + gamma ((1 - lambda) Q'_{t+1} + lambda y_{t+1})`` of one env and agent, backward in time."""
    y = [math.nan] * length
    for t in reversed(range(length)):
        reward, following = float(batch["next", "reward"][t, 0]), float(next_value[t])
        if nothing_follows[t]:
            y[t] = reward
        elif is_end[t] or t == length - 1:
            y[t] = reward + GAMMA * following
        else:
            y[t] = reward + GAMMA * ((1 - lmbda) * following + lmbda * y[t + 1])
    return torch.tensor(y)


class Scripted:
    """A policy of all groups that takes the given actions, whatever it sees."""

    def __init__(self, policy: TeamPolicy, actions: TensorDictBase):
        self.actors, self.actions = policy.actors, actions

    def __call__(self, tensordict: TensorDictBase) -> TensorDictBase:
        return tensordict.update(self.actions)


def drawn(team: TeamSpec, batch: TensorDictBase) -> TensorDict:
    """Random actions of all groups, in the shape of a batch."""
    data = TensorDict({}, batch.shape)
    for group in team:
        chosen = torch.randint(group.action.sizes[0], (*batch.shape, group.n_agents))
        is_one_hot = group.action.kind == "one_hot"
        data[group.name, "action"] = torch.nn.functional.one_hot(chosen, 6) if is_one_hot else chosen
    return data
