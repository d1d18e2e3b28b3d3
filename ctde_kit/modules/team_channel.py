"""A channel that crosses groups: agents of all groups talk, whatever the sizes of their observations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from ctde_kit.errors import UserError
from ctde_kit.keys import Key
from ctde_kit.modules.channel import ChannelEncoder
from ctde_kit.modules.inputs import Input
from ctde_kit.modules.linear import AgentLinear


class TeamInput(nn.Module):
    """Reads all agents of all groups as rows ``[*B, N, F]``, in the team's order; F is the largest group's, else zeros.

    It stands where an ``Input`` stands, for networks of a ``TeamChannel``.

    Args:
        inputs: what each group's agents see, such as ``own_observation(group)``, in the team's order.
    """

    decentralized = False
    per_agent = True

    def __init__(self, inputs: Mapping[str, Input]):
        super().__init__()
        self.inputs = nn.ModuleDict(dict(inputs))
        self.n_agents = sum(one.n_agents for one in inputs.values())
        self.features = max(one.features for one in inputs.values())

    @property
    def _inputs(self) -> list[Any]:
        return list(self.inputs.values())

    @property
    def in_keys(self) -> list[Key]:
        return [key for one in self._inputs for key in one.in_keys]

    def forward(self, tensordict: TensorDictBase) -> Tensor:
        rows = [nn.functional.pad(one(tensordict), (0, self.features - one.features)) for one in self._inputs]
        return torch.cat(rows, -2)

    def alive(self, tensordict: TensorDictBase) -> Tensor | None:
        """Who is alive, bool ``[*B, N]``; ``None`` where all are."""
        masks = [(one.alive(tensordict), one.n_agents) for one in self._inputs]
        known = next((mask for mask, _ in masks if mask is not None), None)
        if known is None:
            return None
        return torch.cat([known.new_ones(*known.shape[:-1], n) if mask is None else mask for mask, n in masks], -1)


class TeamChannel(nn.Module):
    """An encoder a group, one channel over all agents, a head a group.

    Maps the rows ``[*B, N, F]`` of a ``TeamInput`` to each group's outputs ``[*B, n_agents, G]``; a head reads what the
    channel gives and the agent's own input. ``for_group`` is the network of one group's actor: all groups' actors hold
    the same channel, so each group's loss teaches all encoders.

    Args:
        inputs: of the groups, as ``TeamInput`` takes them.
        out_features: G, of each group.
        channel: ``(encodings [*B, N, H], mask) -> [*B, N, channel.out_features]``: ``BidirectionalRNN``,
            ``MeanMessages`` or ``TargetedMessages``.
        hidden_size: H.
        recurrent: encoders are GRUs over time; the hidden state is ``[*B, N, H]``.
        encoder: other options of ``ChannelEncoder``.

    Raises:
        UserError: where inputs and outputs are not of the same groups.

    >>> from ctde_kit.envs.games import CueEnv
    >>> from ctde_kit.modules import MeanMessages, MultiAgentActor, own_observation
    >>> from ctde_kit.specs import TeamSpec
    >>> env = CueEnv(5, two_groups=True)
    >>> team = TeamSpec.from_env(env)
    >>> inputs = {group.name: own_observation(group) for group in team}
    >>> outputs = {group.name: group.action.n_parameters for group in team}
    >>> channel = TeamChannel(inputs, outputs, MeanMessages(8), hidden_size=8)
    >>> actor = MultiAgentActor(team["listener"], TeamInput(inputs), channel.for_group("listener"))
    >>> actor(env.reset())["listener", "action"].shape
    torch.Size([5, 1])
    """

    def __init__(
        self,
        inputs: Mapping[str, Input],
        out_features: Mapping[str, int],
        channel: nn.Module,
        *,
        hidden_size: int = 128,
        recurrent: bool = False,
        out_gain: float | None = None,
        **encoder: Any,
    ):
        super().__init__()
        if list(inputs) != list(out_features):
            raise UserError(f"out_features: expected the groups {list(inputs)} of inputs, found {list(out_features)}")
        made: Any = channel
        self.recurrent, self.hidden_size, self.channel = recurrent, hidden_size, made
        self.features = {name: one.features for name, one in inputs.items()}
        self.sizes = {name: one.n_agents for name, one in inputs.items()}
        self.encoders, self.heads = nn.ModuleDict(), nn.ModuleDict()
        for name, one in inputs.items():
            self.encoders[name] = ChannelEncoder(
                one.features, hidden_size, one.n_agents, recurrent=recurrent, out_gain=out_gain, **encoder
            )
            self.heads[name] = head = AgentLinear(made.out_features + one.features, out_features[name], one.n_agents)
            if out_gain is not None:
                head.reset_parameters(out_gain)

    def for_group(self, name: str) -> GroupNetwork:
        """The network of one group's agents, on the same weights.

        Raises:
            UserError: for a group that it lacks.
        """
        if name not in self.sizes:
            raise UserError(f"no group {name!r}: this channel has {list(self.sizes)}")
        return GroupNetwork(self, name)

    def forward(self, group: str, x: Tensor, *carried: Tensor, mask: Tensor | None = None, unroll: bool = False) -> Any:
        """Outputs of one group; behind GRUs also all agents' hidden states after and before."""
        sizes = list(self.sizes.values())
        rows = x.split(sizes, -2)
        masks = [None] * len(sizes) if mask is None else mask.split(sizes, -1)
        hidden = carried[0].split(sizes, -2) if carried else [None] * len(sizes)
        encoded, states = [], []
        encoders: list[Any] = list(self.encoders.values())
        for encoder, own, alive, state, features in zip(
            encoders, rows, masks, hidden, self.features.values(), strict=True
        ):
            run = encoder.unroll if unroll else encoder
            given = run(_encodings, own[..., :features], *([state, *carried[1:]] if carried else []), mask=alive)
            encoded.append(given[0] if carried else given)
            states.append(given[1:] if carried else ())
        heard = self.channel(torch.cat(encoded, -2), mask)
        index = list(self.sizes).index(group)
        own = torch.cat([heard.split(sizes, -2)[index], rows[index][..., : self.features[group]]], -1)
        outputs = self.heads[group](own)
        return (outputs, *[torch.cat(parts, -2) for parts in zip(*states, strict=True)]) if carried else outputs


class GroupNetwork(nn.Module):
    """What one group's agents do by a ``TeamChannel``: ``[*B, N, F] -> [*B, n_agents, G]``.

    Args:
        team: the channel of all groups.
        group: whose outputs.
    """

    decentralized = False
    reads_mask = True

    def __init__(self, team: TeamChannel, group: str):
        super().__init__()
        self.team, self.group = team, group
        self.recurrent, self.hidden_size = team.recurrent, team.hidden_size

    def forward(self, x: Tensor, *carried: Tensor, mask: Tensor | None = None) -> Any:
        """Outputs; behind a GRU, with the hidden state and ``is_init``, what ``MultiAgentGRU`` gives."""
        return self.team(self.group, x, *carried, mask=mask)

    def unroll(
        self, x: Tensor, hidden: Tensor, is_init: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Steps along time, as ``MultiAgentGRU.unroll`` has it; agents talk within each."""
        return self.team(self.group, x, hidden, is_init, mask=mask, unroll=True)


def _encodings(encoded: Tensor, x: Tensor, mask: Tensor | None) -> Tensor:
    return encoded
