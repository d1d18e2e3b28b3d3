"""CommNet: each agent hears the mean of the others (Sukhbaatar et al. 2016)."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor, nn

from ctde_kit.errors import UserError
from ctde_kit.modules.communication.channel_encoder import ChannelEncoder, EncoderOptions
from ctde_kit.modules.communication.channel_network import MultiAgentChannelNetwork
from ctde_kit.modules.communication.dead_agents import zero_dead
from ctde_kit.modules.networks.linear import AgentLinear


class MeanMessages(nn.Module):
    """Rounds in which each agent hears the mean of the other living agents' states: ``[*B, n, H] -> [*B, n, H]``.

    Sukhbaatar et al. 2016, section 2.1, eqs. 1 and 2: ``h = tanh(H_k h + C_k c)`` with separate weights per round. An
    agent that is alone, or dead, hears zeros.

    Args:
        hidden_size: H.
        rounds: how often agents talk.

    Raises:
        UserError: for less than one round.

    >>> import torch
    >>> from ctde_kit.modules import MeanMessages
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
    """For each living agent, the mean of ``x`` ``[*B, n, H]`` over the other living agents; zeros if there are none.

    >>> import torch
    >>> mean_of_others(torch.tensor([[2.0], [4.0], [8.0]]), torch.tensor([True, True, False])).flatten()
    tensor([4., 2., 0.])
    """
    messages = zero_dead(x, mask)
    others = messages.sum(-2, keepdim=True) - messages
    if mask is None:
        return others / max(x.shape[-2] - 1, 1)
    count = (mask.sum(-1, keepdim=True) - 1).clamp(min=1).unsqueeze(-1)
    return zero_dead(others / count, mask)


class MultiAgentCommNet(MultiAgentChannelNetwork):
    """CommNet: agents that hear the mean of the others: ``[*B, n_agents, F] -> [*B, n_agents, G]``.

    Sukhbaatar et al. 2016, "Learning Multiagent Communication with Backpropagation", section 2: a
    ``MultiAgentChannelNetwork`` whose channel is ``rounds`` of ``MeanMessages``. Agents are alike: permuted inputs give
    permuted outputs. In the paper the rounds' hidden state is carried along time; here it is the encoder's.

    Args:
        in_features: F.
        out_features: G.
        n_agents: size of the agent axis; the weights do not depend on it.
        hidden_size: H, of the encoder's output and of each round.
        rounds: how often agents talk.
        recurrent: the encoder is a GRU over time, else a multilayer perceptron.
        out_gain: gain of an orthogonal initialization of the head, as in ``MultiAgentMLP``.
        options: other options of the encoder: ``num_cells``, ``activation_class``, ``layer_norm``.

    Raises:
        UserError: for less than one round, or a mask of another shape.

    >>> import torch
    >>> from ctde_kit.modules import MultiAgentCommNet
    >>> MultiAgentCommNet(5, 2, n_agents=3, hidden_size=8)(torch.zeros(7, 3, 5)).shape
    torch.Size([7, 3, 2])
    """

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
        **options: Unpack[EncoderOptions],
    ):
        encoder = ChannelEncoder(in_features, hidden_size, n_agents, recurrent=recurrent, out_gain=out_gain, **options)
        super().__init__(encoder, MeanMessages(hidden_size, rounds), out_features, out_gain=out_gain)
