"""TarMAC: agents choose whom to listen to (Das et al. 2019)."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor, nn

from ctde_kit.errors import UserError
from ctde_kit.modules.communication.channel_encoder import ChannelEncoder, EncoderOptions
from ctde_kit.modules.communication.channel_network import MultiAgentChannelNetwork
from ctde_kit.modules.communication.dead_agents import zero_dead
from ctde_kit.modules.networks.linear import AgentLinear


class TargetedMessages(nn.Module):
    """Rounds in which agents send a signature and a value, and listen by a query: ``[*B, n, H] -> [*B, n, H]``.

    Das et al. 2019, section 4.2, eqs. 3 to 6: agent j hears the sum of all living agents' values, including its own,
    weighted by the softmax of ``query_j . signature_i / sqrt(S)``; its next state is ``tanh(W [heard, h])``. All rounds
    share their weights. Dead agents send nothing and hear zeros.

    Args:
        hidden_size: H.
        signature_size: S, of signatures and queries.
        rounds: how often agents talk.

    Raises:
        UserError: for less than one round or an empty signature.

    >>> import torch
    >>> from ctde_kit.modules import TargetedMessages
    >>> TargetedMessages(4, signature_size=2, rounds=2)(torch.zeros(7, 3, 4)).shape
    torch.Size([7, 3, 4])
    """

    def __init__(self, hidden_size: int, signature_size: int = 16, rounds: int = 2):
        super().__init__()
        if rounds < 1 or signature_size < 1:
            raise UserError(f"rounds={rounds}, signature_size={signature_size}: expected 1 or more of each")
        self.out_features, self.rounds = hidden_size, rounds
        # One product for four things: signature, query, value, and what the agent keeps of its own state.
        self.sizes = [signature_size, signature_size, hidden_size, hidden_size]
        self.message = AgentLinear(hidden_size, sum(self.sizes), 1)
        self.heard = nn.Linear(hidden_size, hidden_size, bias=False)

    def forward(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        for _ in range(self.rounds):
            signature, query, value, kept = self.message(hidden).split(self.sizes, -1)
            hidden = (kept + self.heard(_attention(signature, query, mask) @ value)).tanh()
        return hidden

    def first_weights(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        """Whom each agent hears in the first round, ``[*B, n, n]``: rows sum to 1; those of dead listeners are zero."""
        signature, query, _, _ = self.message(hidden).split(self.sizes, -1)
        return _attention(signature, query, mask)


def _attention(signature: Tensor, query: Tensor, mask: Tensor | None) -> Tensor:
    """Weights ``[*B, n, n]``: one row per listener, which sums to 1; zeros for dead listeners and dead speakers."""
    scores = query / signature.shape[-1] ** 0.5 @ signature.transpose(-1, -2)
    if mask is None:
        return scores.softmax(-1)
    # Not minus infinity, which would give NaN where all are dead.
    scores = scores.masked_fill(~mask.unsqueeze(-2), torch.finfo(scores.dtype).min)
    return zero_dead(scores.softmax(-1), mask)


class MultiAgentTarMAC(MultiAgentChannelNetwork):
    """TarMAC: agents that choose whom to listen to: ``[*B, n_agents, F] -> [*B, n_agents, G]``.

    Das et al. 2019, "TarMAC: Targeted Multi-Agent Communication", section 4: a ``MultiAgentChannelNetwork`` whose
    channel is ``rounds`` of ``TargetedMessages``. Agents are alike: permuted inputs give permuted outputs. In the paper
    messages arrive one step later; here they arrive in the same step.

    Args:
        in_features: F.
        out_features: G.
        n_agents: size of the agent axis; the weights do not depend on it.
        hidden_size: H, of the encoder's output and of values.
        signature_size: of signatures and queries.
        rounds: how often agents talk.
        recurrent: the encoder is a GRU over time, else a multilayer perceptron.
        out_gain: gain of an orthogonal initialization of the head, as in ``MultiAgentMLP``.
        options: other options of the encoder: ``num_cells``, ``activation_class``, ``layer_norm``.

    Raises:
        UserError: for less than one round, an empty signature, or a mask of another shape.

    >>> import torch
    >>> from ctde_kit.modules import MultiAgentTarMAC
    >>> MultiAgentTarMAC(5, 2, n_agents=3, hidden_size=8)(torch.zeros(7, 3, 5)).shape
    torch.Size([7, 3, 2])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        n_agents: int,
        *,
        hidden_size: int = 128,
        signature_size: int = 16,
        rounds: int = 2,
        recurrent: bool = False,
        out_gain: float | None = None,
        **options: Unpack[EncoderOptions],
    ):
        encoder = ChannelEncoder(in_features, hidden_size, n_agents, recurrent=recurrent, out_gain=out_gain, **options)
        channel = TargetedMessages(hidden_size, signature_size, rounds)
        super().__init__(encoder, channel, out_features, out_gain=out_gain)
