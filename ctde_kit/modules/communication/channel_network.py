"""A network of agents that communicate: an encoder, a channel between agents, and a head."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from ctde_kit.modules.communication.channel_encoder import ChannelEncoder
from ctde_kit.modules.communication.dead_agents import zero_dead
from ctde_kit.modules.networks.linear import AgentLinear
from ctde_kit.modules.networks.sizes import NetworkOutput


class Channel(Protocol):
    """A module through which agents talk, such as ``BidirectionalRNN``, ``MeanMessages`` or ``TargetedMessages``."""

    out_features: int

    def __call__(self, encoded: Tensor, mask: Tensor | None = None, /) -> Tensor:
        """``[*B, n, H] -> [*B, n, out_features]``; ``mask`` bool ``[*B, n]``: which agents are alive."""
        ...


class MultiAgentChannelNetwork(nn.Module):
    """Agents that encode their inputs, talk through a channel, and read what they heard: ``[*B, n, F] -> [*B, n, G]``.

    All agents have the same weights. The channel works along the agent axis and the encoder, if it is a GRU, along
    time; the two never mix. ``MultiAgentBiCNet``, ``MultiAgentCommNet`` and ``MultiAgentTarMAC`` are the forms of the
    papers. ``mask`` bool ``[*B, n]`` says which agents are alive, ``None`` that all are; the dead change nothing for
    the living.

    Args:
        encoder: ``[*B, n, F] -> [*B, n, H]``. If it is a GRU, the network takes a hidden state ``[*B, n, H]`` and
            ``is_init``, and has ``unroll``, as ``MultiAgentGRU`` does.
        channel: ``(encodings [*B, n, H], mask) -> [*B, n, channel.out_features]``.
        out_features: G, of the linear head.
        head_sees_input: the head also reads each agent's own input.
        out_gain: gain of an orthogonal initialization of the head, as in ``MultiAgentMLP``.

    >>> import torch
    >>> from ctde_kit.modules import MeanMessages, MultiAgentChannelNetwork
    >>> from ctde_kit.modules.communication.channel_encoder import ChannelEncoder
    >>> encoder = ChannelEncoder(5, 8, n_agents=3, recurrent=True)
    >>> network = MultiAgentChannelNetwork(encoder, MeanMessages(8, rounds=1), 2)
    >>> x, hidden, is_init = torch.zeros(7, 3, 5), torch.zeros(7, 3, 8), torch.zeros(7, 1).bool()
    >>> outputs, next_hidden, used_hidden = network(x, hidden, is_init)
    >>> outputs.shape, next_hidden.shape
    (torch.Size([7, 3, 2]), torch.Size([7, 3, 8]))
    """

    decentralized = False
    reads_mask = True

    def __init__(
        self,
        encoder: ChannelEncoder,
        channel: Channel,
        out_features: int,
        *,
        head_sees_input: bool = False,
        out_gain: float | None = None,
    ):
        super().__init__()
        self.recurrent, self.hidden_size, self.head_sees_input = encoder.recurrent, encoder.hidden_size, head_sees_input
        self.encoder, self.channel = encoder, channel
        in_features = channel.out_features + encoder.in_features * head_sees_input
        self.head = AgentLinear(in_features, out_features, encoder.n_agents)
        if out_gain is not None:
            self.head.reset_parameters(out_gain)

    def forward(self, x: Tensor, *carried: Tensor, mask: Tensor | None = None) -> NetworkOutput:
        """Outputs; with a GRU, which also takes hidden state and ``is_init``, what ``MultiAgentGRU`` returns."""
        x = zero_dead(x, mask)
        if not self.recurrent:
            return self._talk(self.encoder(x), x, mask)
        encoded, after, before = self.encoder(x, *carried)
        return self._talk(encoded, x, mask), after, before

    def unroll(
        self, x: Tensor, hidden: Tensor, is_init: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """All steps along time, as ``MultiAgentGRU.unroll`` computes them; agents talk within each step."""
        x = zero_dead(x, mask)
        encoded, after, before = self.encoder.unroll(x, hidden, is_init)
        return self._talk(encoded, x, mask), after, before

    def _talk(self, encoded: Tensor, x: Tensor, mask: Tensor | None) -> Tensor:
        messages = self.channel(encoded, mask)
        return self.head(torch.cat([messages, x], -1) if self.head_sees_input else messages)
