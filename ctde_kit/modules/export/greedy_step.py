"""One agent's greedy policy for one step, as a function of tensors that can be exported."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from ctde_kit.errors import UserError
from ctde_kit.keys import IS_INIT, Key, next_key
from ctde_kit.modules.actors.deterministic_actor import SingleAgentDeterministicActor
from ctde_kit.modules.actors.frozen_actor import FrozenActor
from ctde_kit.modules.actors.q_actor import SingleAgentQActor
from ctde_kit.modules.actors.stochastic_actor import SingleAgentActor
from ctde_kit.modules.networks.agent_network import AgentNetwork
from ctde_kit.protocols import GroupActor
from ctde_kit.specs import ActionSpec, GroupSpec

Exportable = SingleAgentActor | SingleAgentQActor | SingleAgentDeterministicActor


@dataclass(frozen=True)
class Port:
    """An input or output of an exported actor, ``[batch, ...]``.

    Args:
        name: its name in the file.
        shape: its shape without the batch axis.
        dtype: float32, int64 or bool.
        meaning: what it is, in a few words.
        carried_from: for an input that takes an output of the step before, the name of that output, with zeros at an
            episode's first step; ``None`` for all others.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    meaning: str
    carried_from: str | None = None

    def zeros(self, batch: int) -> Tensor:
        """Default values of an input: zeros, and for a mask ``True``, so that everything is allowed."""
        values = torch.zeros(batch, *self.shape, dtype=getattr(torch, self.dtype))
        return ~values if self.dtype == "bool" else values


class GreedyStep(nn.Module):
    """One agent's greedy policy for one step: tensors ``[batch, ...]`` in and out, in the order of its ports.

    Observations are the env's own: their normalization is inside, as are the agent's id and the action's bounds. The
    agent counts as alive. Action masks are applied without selecting between booleans, which ONNX Runtime does not
    support.

    Args:
        actor: a group's policy, whose ``for_agent`` gives the policy of one agent.
        agent: the agent's index in the group.

    Raises:
        UserError: for policies that need other agents' data, and for scripted ones.

    >>> import torch
    >>> import ctde_kit as ck
    >>> from ctde_kit.modules.export.greedy_step import GreedyStep
    >>> group = ck.TeamSpec.from_env(ck.VmasEnv("navigation", num_envs=2))["agents"]
    >>> inputs = ck.own_observation(group)
    >>> actor = ck.MultiAgentActor(group, inputs, ck.MultiAgentGRU(inputs.features, 4, group.n_agents, hidden_size=8))
    >>> step = GreedyStep(actor, agent=0)
    >>> [port.name for port in step.inputs], [port.name for port in step.outputs]
    (['observation', 'hidden'], ['action', 'next_hidden'])
    >>> [tuple(output.shape) for output in step(torch.zeros(5, 18), torch.zeros(5, 8))]
    [(5, 2), (5, 8)]
    """

    low: Tensor
    high: Tensor

    def __init__(self, actor: GroupActor, agent: int):
        super().__init__()
        single = _single(actor, agent)
        self.group: GroupSpec = single.actor.group
        self.network: AgentNetwork = single.actor.agent_network
        action = self.group.action
        self.register_buffer("low", torch.tensor(action.low).squeeze(0))
        self.register_buffer("high", torch.tensor(action.high).squeeze(0))
        self.inputs = list(self._inputs())
        self.outputs = [Port("action", *_action_port(action))]
        if self.network.hidden_key is not None:
            size = self.network.hidden_shape[1]
            self.outputs.append(Port("next_hidden", (size,), "float32", "the memory for the next step"))
        self._read: dict[str, Key] = self._keys()

    def _inputs(self) -> Iterator[Port]:
        group, action = self.group, self.group.action
        yield Port("observation", (group.observation_dim,), "float32", "what the environment shows the agent, as it is")
        if group.action_mask:
            yield Port("action_mask", (sum(action.sizes),), "bool", "which choices are allowed")
        if group.keys.last_action in self.network.in_keys:
            meaning = "the action of the step before, one-hot; zeros at an episode's first step"
            yield Port("last_action", (sum(action.sizes),), "float32", meaning)
        if group.keys.sub_policy in self.network.in_keys:
            yield Port("sub_policy", (), "int64", "which policy of the ensemble it follows in this episode; draw it")
        if self.network.hidden_key is not None:
            meaning = "the memory of the steps before; zeros at an episode's first step"
            yield Port("hidden", (self.network.hidden_shape[1],), "float32", meaning, "next_hidden")

    def _keys(self) -> dict[str, Key]:
        keys = self.group.keys
        key_of = {"observation": keys.observation, "last_action": keys.last_action, "sub_policy": keys.sub_policy}
        return {port.name: key_of[port.name] for port in self.inputs if port.name in key_of}

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        scores, *hidden = self.scores(*tensors)
        return self._action(scores), *hidden

    def scores(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """What the action is computed from, and the next hidden state of a recurrent network.

        The former are locations of continuous actions, or one logit or value per discrete choice; choices that are not
        allowed have the lowest finite number.
        """
        given = dict(zip([port.name for port in self.inputs], tensors, strict=True))
        # Without a batch size: an exported graph takes any.
        data = TensorDict({key: given[name] for name, key in self._read.items()}, [])
        observation = given["observation"]
        if self.group.mask:
            data.set(self.group.keys.mask, torch.ones_like(observation[:, 0], dtype=torch.bool))
        if self.network.hidden_key is not None:
            data.set(self.network.hidden_key, given["hidden"].unsqueeze(1))
            data.set(IS_INIT, torch.zeros_like(observation[:, :1], dtype=torch.bool))
        data = self.network(data)
        scores = data.get(self.network.out_keys[0]).squeeze(1)
        if "action_mask" in given:
            lowest = torch.finfo(scores.dtype).min
            scores = torch.where(given["action_mask"], scores, torch.full_like(scores, lowest))
        if self.network.hidden_key is None:
            return (scores,)
        return scores, data.get(next_key(self.network.hidden_key)).squeeze(1)

    def state(self) -> dict[str, Tensor]:
        """All that may differ from other agents' steps: parameters, statistics, the agent's id and the bounds."""
        tensors = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        return {name: value.detach() for name, value in tensors.items()}

    def _action(self, scores: Tensor) -> Tensor:
        action = self.group.action
        if not action.discrete:
            squashed = self.low + (self.high - self.low) / 2 * (scores.tanh() + 1)
            return torch.minimum(torch.maximum(squashed, self.low), self.high)
        # Where nothing is allowed, all scores are equal, and the first choice, the no-op, is taken.
        choices = [part.argmax(-1) for part in scores.split(list(action.sizes), -1)]
        if action.kind == "multi_discrete":
            return torch.stack(choices, -1)
        if action.kind == "one_hot":
            places = torch.arange(action.sizes[0], device=scores.device)
            return (choices[0].unsqueeze(-1) == places).long()
        return choices[0]


def _single(actor: GroupActor, agent: int) -> Exportable:
    while isinstance(actor, FrozenActor):
        actor = actor.group_actor
    try:
        single = actor.for_agent(agent)
    except UserError as error:
        raise UserError(f"export: group {actor.group.name!r}: {str(error).removeprefix('for_agent: ')}") from error
    if not isinstance(single, Exportable):
        raise UserError(
            f"export: group {actor.group.name!r} is played by {type(actor).__name__}, which is no network; leave it out"
        )
    return single


def _action_port(action: ActionSpec) -> tuple[tuple[int, ...], str, str]:
    if action.kind == "continuous":
        return (action.sizes[0],), "float32", "the action within the environment's own bounds, in its own units"
    if action.kind == "multi_discrete":
        return (len(action.sizes),), "int64", f"one choice each of {', '.join(map(str, action.sizes))}, from 0"
    if action.kind == "one_hot":
        return (action.sizes[0],), "int64", f"one of {action.sizes[0]} choices, one-hot"
    return (), "int64", f"one of {action.sizes[0]} choices, from 0"
