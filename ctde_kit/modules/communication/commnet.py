"""A channel in which each agent hears the mean of the others."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ctde_kit.errors import UserError
from ctde_kit.modules.communication.channel_encoder import ChannelEncoder, silenced
from ctde_kit.modules.networks.linear import AgentLinear


class MeanMessages(nn.Module):
    """Rounds in which agents hear the mean of the other living agents' states: ``[*B, n, H] -> [*B, n, H]``.

    Sukhbaatar et al. 2016, section 2.1, eqs. 1 and 2: ``h = tanh(H_k h + C_k c)`` with weights for each round. Who is
    alone, or dead, hears zeros.

    Args:
        hidden_size: H.
        rounds: how often agents talk.

    Raises:
        UserError: for less than one round.

    >>> import torch
    >>> MeanMessages(4, rounds=2)(torch.zeros(7, 3, 4)).shape
    torch.Size([7, 3, 4])
    """

    def __init__(self, hidden_size: int, rounds: int = 2):
        super().__init__()
        if rounds < 1:
            raise UserError(f"rounds={rounds}: expected 1 or more")
        self.out_features = hidden_size
        self.own = nn.ModuleList(AgentLinear(hidden_size, hidden_size, 1) for _ in range(rounds))
        self.heard = nn.ModuleList(nn.Linear(hidden_size, hidden_size, bias=False) for _ in range(rounds))

    def forward(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        for own, heard in zip(self.own, self.heard, strict=True):
            hidden = (own(hidden) + heard(mean_of_others(hidden, mask))).tanh()
        return hidden


def mean_of_others(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """For each living agent the mean of ``x`` ``[*B, n, H]`` over the other living ones, zeros where there is none.

    >>> import torch
    >>> mean_of_others(torch.tensor([[2.0], [4.0], [8.0]]), torch.tensor([True, True, False])).flatten()
    tensor([4., 2., 0.])
    """
    said = silenced(x, mask)
    others = said.sum(-2, keepdim=True) - said
    if mask is None:
        return others / max(x.shape[-2] - 1, 1)
    count = (mask.sum(-1, keepdim=True) - 1).clamp(min=1).unsqueeze(-1)
    return silenced(others / count, mask)


class MultiAgentCommNet(nn.Module):
    """Agents that hear the mean of the others: ``[*B, n_agents, F] -> [*B, n_agents, G]``.

    Sukhbaatar et al. 2016, "Learning Multiagent Communication with Backpropagation", section 2: a shared encoder,
    ``rounds`` of ``MeanMessages``, and a shared linear head. Agents are alike: permuted inputs give permuted outputs.
    With ``recurrent`` the encoder is a GRU over time, with ``MultiAgentGRU``'s hidden state ``[*B, n_agents, H]``,
    ``is_init`` and ``unroll``; in the paper the rounds' own state goes on in time. Reads ``mask`` bool
    ``[*B, n_agents]``, who is alive: for the living the dead are not there.

    Args:
        in_features: F.
        out_features: G.
        n_agents: size of the agent axis; the weights do not depend on it.
        hidden_size: H, of the encoder's output and of each round.
        rounds: how often agents talk.
        recurrent: the encoder is a GRU over time, else a perceptron.
        out_gain: gain of an orthogonal initialization of the head, as in ``MultiAgentMLP``.
        encoder: other options of ``ChannelEncoder``.

    Raises:
        UserError: for less than one round, a mask of another shape.

    >>> import torch
    >>> MultiAgentCommNet(5, 2, n_agents=3, hidden_size=8)(torch.zeros(7, 3, 5)).shape
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
        self.channel = MeanMessages(hidden_size, rounds)
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
