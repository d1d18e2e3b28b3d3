"""A channel in which agents choose whom to listen to."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ctde_kit.errors import UserError
from ctde_kit.modules.communication.channel_encoder import ChannelEncoder, silenced
from ctde_kit.modules.networks.linear import AgentLinear


class TargetedMessages(nn.Module):
    """Rounds in which agents send a signature and a value, and listen by a query: ``[*B, n, H] -> [*B, n, H]``.

    Das et al. 2019, section 4.2, eqs. 3 to 6: agent j hears the sum of all living agents' values, its own among them,
    weighted by the softmax of ``query_j . signature_i / sqrt(S)``, and goes on as ``tanh(W [heard, h])``. All rounds
    have the same weights. The dead send nothing and hear zeros.

    Args:
        hidden_size: H.
        signature_size: S, of signatures and queries.
        rounds: how often agents talk.

    Raises:
        UserError: for less than one round or an empty signature.

    >>> TargetedMessages(4, signature_size=2, rounds=2)(torch.zeros(7, 3, 4)).shape
    torch.Size([7, 3, 4])
    """

    def __init__(self, hidden_size: int, signature_size: int = 16, rounds: int = 2):
        super().__init__()
        if rounds < 1 or signature_size < 1:
            raise UserError(f"rounds={rounds}, signature_size={signature_size}: expected 1 or more of each")
        self.out_features, self.rounds = hidden_size, rounds
        # Signature, query, value, and what the agent keeps of its own state: one product.
        self.sizes = [signature_size, signature_size, hidden_size, hidden_size]
        self.message = AgentLinear(hidden_size, sum(self.sizes), 1)
        self.heard = nn.Linear(hidden_size, hidden_size, bias=False)

    def forward(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        for _ in range(self.rounds):
            signature, query, value, own = self.message(hidden).split(self.sizes, -1)
            hidden = (own + self.heard(_attention(signature, query, mask) @ value)).tanh()
        return hidden


def _attention(signature: Tensor, query: Tensor, mask: Tensor | None) -> Tensor:
    """Weights ``[*B, n, n]``, a row a listener, which sum to 1; zeros for and to the dead."""
    scores = query / signature.shape[-1] ** 0.5 @ signature.transpose(-1, -2)
    if mask is None:
        return scores.softmax(-1)
    # Not minus infinity, which is NaN where all are dead.
    scores = scores.masked_fill(~mask.unsqueeze(-2), torch.finfo(scores.dtype).min)
    return silenced(scores.softmax(-1), mask)


class MultiAgentTarMAC(nn.Module):
    """Agents that choose whom to listen to: ``[*B, n_agents, F] -> [*B, n_agents, G]``.

    Das et al. 2019, "TarMAC: Targeted Multi-Agent Communication", section 4: a shared encoder, ``rounds`` of
    ``TargetedMessages``, and a shared linear head. Agents are alike: permuted inputs give permuted outputs. With
    ``recurrent`` the encoder is a GRU over time, with ``MultiAgentGRU``'s hidden state ``[*B, n_agents, H]``,
    ``is_init`` and ``unroll``; in the paper messages arrive one step later, here in the same. Reads ``mask`` bool
    ``[*B, n_agents]``, who is alive: for the living the dead are not there.

    Args:
        in_features: F.
        out_features: G.
        n_agents: size of the agent axis; the weights do not depend on it.
        hidden_size: H, of the encoder's output and of values.
        signature_size: of signatures and queries.
        rounds: how often agents talk.
        recurrent: the encoder is a GRU over time, else a perceptron.
        out_gain: gain of an orthogonal initialization of the head, as in ``MultiAgentMLP``.
        encoder: other options of ``ChannelEncoder``.

    Raises:
        UserError: for less than one round, an empty signature, a mask of another shape.

    >>> MultiAgentTarMAC(5, 2, n_agents=3, hidden_size=8)(torch.zeros(7, 3, 5)).shape
    torch.Size([7, 3, 2])
    """

    decentralized = False
    reads_mask = True

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
        **encoder: Any,
    ):
        super().__init__()
        self.recurrent, self.hidden_size = recurrent, hidden_size
        self.encoder = ChannelEncoder(
            in_features, hidden_size, n_agents, recurrent=recurrent, out_gain=out_gain, **encoder
        )
        self.channel = TargetedMessages(hidden_size, signature_size, rounds)
        self.head = AgentLinear(hidden_size, out_features, n_agents)
        if out_gain is not None:
            self.head.reset_parameters(out_gain)

    def forward(self, x: Tensor, *carried: Tensor, mask: Tensor | None = None) -> Any:
        """Outputs; behind a GRU, with the hidden state and ``is_init``, what ``MultiAgentGRU`` gives."""
        return self.encoder(self._talk, x, *carried, mask=mask)

    def unroll(
        self, x: Tensor, hidden: Tensor, is_init: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Steps along time, as ``MultiAgentGRU.unroll`` has it; agents talk within each."""
        return self.encoder.unroll(self._talk, x, hidden, is_init, mask=mask)

    def _talk(self, encoded: Tensor, x: Tensor, mask: Tensor | None) -> Tensor:
        return self.head(self.channel(encoded, mask))
