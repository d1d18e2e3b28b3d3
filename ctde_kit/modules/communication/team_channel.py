"""A channel across groups: agents of all groups talk, whatever the sizes of their observations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Unpack

import torch
from torch import Tensor, nn

from ctde_kit.errors import UserError
from ctde_kit.modules.communication.channel_encoder import ChannelEncoder, EncoderOptions
from ctde_kit.modules.communication.channel_network import Channel
from ctde_kit.modules.communication.dead_agents import zero_dead
from ctde_kit.modules.networks.inputs import Input
from ctde_kit.modules.networks.linear import AgentLinear
from ctde_kit.modules.networks.sizes import NetworkOutput
from ctde_kit.modules.typed_containers import all_of


class TeamChannel(nn.Module):
    """One encoder per group, one channel over all agents, one head per group.

    Maps the rows ``[*B, N, F]`` of a ``TeamInput`` to each group's outputs ``[*B, n_agents, G]``; a head reads what the
    channel gives and the agent's own input. ``for_group`` is the network of one group's actor: all groups' actors hold
    the same channel, so each group's loss teaches all encoders.

    Args:
        inputs: what each group's agents see, as ``TeamInput`` takes it.
        out_features: G, of each group.
        channel: ``(encodings [*B, N, H], mask) -> [*B, N, channel.out_features]``: ``BidirectionalRNN``,
            ``MeanMessages`` or ``TargetedMessages``.
        hidden_size: H.
        recurrent: encoders are GRUs over time; the hidden state is ``[*B, N, H]``.
        out_gain: gain of an orthogonal initialization of the heads, as in ``MultiAgentMLP``.
        options: other options of the encoders: ``num_cells``, ``activation_class``, ``layer_norm``.

    Raises:
        UserError: where inputs and outputs are not of the same groups.

    >>> from ctde_kit.envs.games import CueEnv
    >>> from ctde_kit.modules import MeanMessages, MultiAgentActor, TeamChannel, own_observation
    >>> from ctde_kit.modules.networks.team_input import TeamInput
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
        channel: Channel,
        *,
        hidden_size: int = 128,
        recurrent: bool = False,
        out_gain: float | None = None,
        **options: Unpack[EncoderOptions],
    ):
        super().__init__()
        if list(inputs) != list(out_features):
            raise UserError(f"out_features: expected the groups {list(inputs)} of inputs, found {list(out_features)}")
        self.recurrent, self.hidden_size, self.channel = recurrent, hidden_size, channel
        self.features = {name: group_input.features for name, group_input in inputs.items()}
        self.sizes = {name: group_input.n_agents for name, group_input in inputs.items()}
        self.encoders, self.heads = nn.ModuleDict(), nn.ModuleDict()
        for name, features in self.features.items():
            n_agents = self.sizes[name]
            self.encoders[name] = ChannelEncoder(
                features, hidden_size, n_agents, recurrent=recurrent, out_gain=out_gain, **options
            )
            self.heads[name] = head = AgentLinear(channel.out_features + features, out_features[name], n_agents)
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

    def forward(self, group: str, x: Tensor, *carried: Tensor, mask: Tensor | None = None) -> NetworkOutput:
        """Outputs of one group; with GRUs also all agents' hidden states after and before the step."""
        if not self.recurrent:
            encoded = [encoder(seen) for encoder, seen in self._encoders_and_inputs(x, mask)]
            return self._talk(group, encoded, x, mask)
        hidden, is_init = carried
        steps = [
            encoder(seen, state, is_init)
            for (encoder, seen), state in zip(self._encoders_and_inputs(x, mask), self._by_group(hidden), strict=True)
        ]
        return self._joined(group, steps, x, mask)

    def unroll(
        self, group: str, x: Tensor, hidden: Tensor, is_init: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """All steps along time, as ``MultiAgentGRU.unroll`` computes them; agents talk within each step."""
        steps = [
            encoder.unroll(seen, state, is_init)
            for (encoder, seen), state in zip(self._encoders_and_inputs(x, mask), self._by_group(hidden), strict=True)
        ]
        return self._joined(group, steps, x, mask)

    def _by_group(self, rows: Tensor) -> Sequence[Tensor]:
        """``rows`` ``[*B, N, ...]`` in parts ``[*B, n_agents, ...]``, one per group."""
        return rows.split(list(self.sizes.values()), -2)

    def _encoders_and_inputs(self, x: Tensor, mask: Tensor | None) -> list[tuple[ChannelEncoder, Tensor]]:
        """Each group's encoder and what it reads: the group's own features, zeros where an agent is dead."""
        masks = [None] * len(self.sizes) if mask is None else mask.split(list(self.sizes.values()), -1)
        encoders = all_of(self.encoders.values(), ChannelEncoder)
        parts = zip(encoders, self._by_group(x), self.features.values(), masks, strict=True)
        return [(encoder, zero_dead(rows[..., :features], alive)) for encoder, rows, features, alive in parts]

    def _joined(
        self, group: str, steps: list[tuple[Tensor, Tensor, Tensor]], x: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One group's outputs and all agents' hidden states, from what each group's recurrent encoder gave."""
        encoded, after, before = zip(*steps, strict=True)
        return self._talk(group, encoded, x, mask), torch.cat(after, -2), torch.cat(before, -2)

    def _talk(self, group: str, encoded: Sequence[Tensor], x: Tensor, mask: Tensor | None) -> Tensor:
        messages = self.channel(torch.cat([*encoded], -2), mask)
        index = list(self.sizes).index(group)
        own_input = self._by_group(x)[index][..., : self.features[group]]
        return self.heads[group](torch.cat([self._by_group(messages)[index], own_input], -1))


class GroupNetwork(nn.Module):
    """The network of one group in a ``TeamChannel``: ``[*B, N, F] -> [*B, n_agents, G]``.

    Args:
        team: the channel of all groups.
        group: the name of the group whose outputs it gives.
    """

    decentralized = False
    reads_mask = True

    def __init__(self, team: TeamChannel, group: str):
        super().__init__()
        self.team, self.group = team, group
        self.recurrent, self.hidden_size = team.recurrent, team.hidden_size

    def forward(self, x: Tensor, *carried: Tensor, mask: Tensor | None = None) -> NetworkOutput:
        """Outputs; with a GRU, which also takes hidden state and ``is_init``, what ``MultiAgentGRU`` returns."""
        return self.team(self.group, x, *carried, mask=mask)

    def unroll(
        self, x: Tensor, hidden: Tensor, is_init: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """All steps along time, as ``MultiAgentGRU.unroll`` does it; agents talk within each step."""
        return self.team.unroll(self.group, x, hidden, is_init, mask)
