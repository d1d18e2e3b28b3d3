"""MADDPG as the paper writes it: loops over agents, one formula each, on the networks' own outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from ctde_kit.modules import ActionValueCritic, MultiAgentDeterministicActor
from ctde_kit.modules.actors.action_vectors import gumbel_like

# What the formulas leave out, which MADDPGLoss has by default.
PLAIN: dict[str, Any] = {"action_regularization": 0.0}


def vectors(actors: dict[str, MultiAgentDeterministicActor], batch: TensorDictBase) -> dict[str, Tensor]:
    """What was done, as vectors."""
    return {name: actor.group.action.vector(batch[name, "action"]) for name, actor in actors.items()}


def policy(actor: MultiAgentDeterministicActor, network: Any, observations: TensorDictBase) -> Tensor:
    """Logits, or actions before squashing."""
    return network(observations.select(*network.in_keys))[actor.output_key]


def value(critic: Any, name: str, observations: TensorDictBase, actions: dict[str, Tensor], agent: int) -> Tensor:
    """Q_i of one joint action, ``[B]``."""
    data = observations.select(*[key for key in critic.in_keys if key[-1] not in ("action", "action_vector")])
    for group, action in actions.items():
        data[group, "action_vector"] = action
    return critic(data)[name, "state_action_value"][:, agent, 0]


def squash(actor: MultiAgentDeterministicActor, loc: Tensor) -> Tensor:
    low, high = torch.tensor(actor.group.action.low), torch.tensor(actor.group.action.high)
    return (low + high) / 2 + (high - low) / 2 * loc.tanh()


def target_actions(loss: Any, actors: dict[str, MultiAgentDeterministicActor], batch: TensorDictBase) -> dict:
    """mu'(o') of every agent, hard where discrete."""
    following = {}
    for name, actor in actors.items():
        output = policy(actor, loss.target_networks[f"actor_{name}"], batch["next"])
        if actor.group.action.discrete:
            following[name] = torch.nn.functional.one_hot(output.argmax(-1), output.shape[-1]).to(output.dtype)
        else:
            following[name] = squash(actor, output)
    return following


def current_actions(actor: MultiAgentDeterministicActor, batch: TensorDictBase) -> Tensor:
    """mu(o), where discrete by straight-through Gumbel-softmax."""
    output = policy(actor, actor.agent_network, batch)
    if not actor.group.action.discrete:
        return squash(actor, output)
    noisy = output + gumbel_like(output)
    soft = noisy.softmax(-1)
    hard = torch.nn.functional.one_hot(noisy.argmax(-1), output.shape[-1]).to(output.dtype)
    return hard + soft - soft.detach()


def losses(
    loss: Any,
    actors: dict[str, MultiAgentDeterministicActor],
    critics: dict[str, ActionValueCritic],
    batch: TensorDictBase,
    *,
    gamma: float,
    current: bool = False,
    opponents: Mapping[str, tuple[Tensor, Tensor]] | None = None,
) -> tuple[Tensor, Tensor]:
    """Actor loss and critic loss, each a mean over agents and batch, and a sum over groups.

    ``opponents``: what groups that do not learn did, and what they do next.
    """
    did = {name: pair[0] for name, pair in (opponents or {}).items()}
    do_next = {name: pair[1] for name, pair in (opponents or {}).items()}
    done_before, following = vectors(actors, batch) | did, target_actions(loss, actors, batch) | do_next
    now = {name: current_actions(actor, batch) for name, actor in actors.items()} | did
    policies, values = [], []
    for name, critic in critics.items():
        n_agents = actors[name].group.n_agents
        for i in range(n_agents):
            next_value = value(loss.target_networks[f"critic_{name}"], name, batch["next"], following, i)
            ends = batch["next", "terminated"][:, 0].double()
            y = batch["next", name, "reward"][:, i, 0] + gamma * (1 - ends) * next_value
            errors = value(critic, name, batch, done_before, i) - y.detach()
            values.append(0.5 * errors.square().mean() / n_agents)
            others = now if current else done_before
            joint = {group: action.detach().clone() for group, action in others.items()}
            joint[name] = torch.stack([now[name][:, j] if j == i else joint[name][:, j] for j in range(n_agents)], 1)
            policies.append(-value(critic, name, batch, joint, i).mean() / n_agents)
    return torch.stack(policies).sum(), torch.stack(values).sum()


def transitions(actors: dict[str, MultiAgentDeterministicActor], team: Any, size: int) -> TensorDict:
    """Random transitions, some of which terminate."""
    data = TensorDict({"next": TensorDict({}, [size])}, [size])
    for name, actor in actors.items():
        group = actor.group
        shape = (size, group.n_agents)
        for part in (data, data["next"]):
            part[name, "observation"] = torch.randn(*shape, group.observation_dim)
        if group.action.kind == "categorical":
            data[name, "action"] = torch.randint(group.action.sizes[0], shape)
        else:
            data[name, "action"] = actor._squash(torch.randn(*shape, group.action.sizes[0]))
        data["next", name, "reward"] = torch.randn(*shape, 1)
    if team.state_dim is not None:
        data["state"], data["next", "state"] = torch.randn(2, size, team.state_dim)
    data["next", "terminated"] = torch.rand(size, 1) < 0.3
    data["next", "done"] = data["next", "terminated"] | (torch.rand(size, 1) < 0.3)
    return data
