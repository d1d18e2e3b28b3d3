"""BiCNet: agents talk through a recurrent layer along the agent axis, in both directions (Peng et al. 2017)."""

from __future__ import annotations

from typing import Literal, Unpack, get_args

import torch
from torch import Tensor, nn

from ctde_kit.errors import UserError
from ctde_kit.modules.communication.channel_encoder import ChannelEncoder, EncoderOptions
from ctde_kit.modules.communication.channel_network import MultiAgentChannelNetwork
from ctde_kit.modules.communication.dead_agents import zero_dead
from ctde_kit.modules.networks.linear import AgentLinear

Cell = Literal["gru", "lstm"]
GATES = {"gru": 3, "lstm": 4}


class BidirectionalRNN(nn.Module):
    """A GRU or LSTM along the agent axis and a second one in reverse order: ``[*B, n, F] -> [*B, n, 2 * H]``.

    A dead agent leaves the state as it is, so it changes nothing for the living; its own output is zeros.
    Both directions run at once, step by step: PyTorch's packed sequences branch on data, which a graph cannot.

    Args:
        in_features: F.
        hidden_size: H, of each direction.
        cell: ``gru`` or ``lstm``, with PyTorch's gates.

    Raises:
        UserError: for an unknown ``cell``.

    >>> import torch
    >>> from ctde_kit.modules import BidirectionalRNN
    >>> BidirectionalRNN(5, 4)(torch.zeros(7, 3, 5)).shape
    torch.Size([7, 3, 8])
    """

    def __init__(self, in_features: int, hidden_size: int, cell: Cell = "gru"):
        super().__init__()
        if cell not in get_args(Cell):
            raise UserError(f"cell={cell!r}: expected one of {', '.join(get_args(Cell))}")
        self.cell, self.hidden_size, self.out_features = cell, hidden_size, 2 * hidden_size
        gates = GATES[cell] * hidden_size
        self.input_gates = AgentLinear(in_features, gates, 2, share_params=False)
        self.hidden_gates = AgentLinear(hidden_size, gates, 2, share_params=False)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        flat = _both_directions(x.reshape(-1, *x.shape[-2:]))
        gates = self._product(self.input_gates, flat.flatten(1, 2))
        alive = None if mask is None else _both_directions(mask.reshape(-1, mask.shape[-1], 1))
        states = self._states(gates.unflatten(1, flat.shape[1:3]), alive)
        both = torch.cat([states[:, 0], states[:, 1].flip(0)], -1).transpose(0, 1)
        return zero_dead(both.reshape(*x.shape[:-1], self.out_features), mask)

    @staticmethod
    def _product(layer: AgentLinear, x: Tensor) -> Tensor:
        """``[2, B, F] -> [2, B, G]``: what the layer computes, but with the directions first."""
        return torch.baddbmm(layer.bias.unsqueeze(1), x, layer.weight.transpose(1, 2))

    def _states(self, gates: Tensor, alive: Tensor | None) -> Tensor:
        """The states ``[n, 2, B, H]`` after each agent, from ``gates`` ``[2, n, B, G]``."""
        step = self._gru if self.cell == "gru" else self._lstm
        hidden = gates.new_zeros(2, gates.shape[2], self.hidden_size)
        state: tuple[Tensor, ...] = (hidden,) if self.cell == "gru" else (hidden, hidden)
        # One unbind: the gradient of n slices would be n tensors of the full size.
        alive_by_agent = [None] * gates.shape[1] if alive is None else alive.unbind(1)
        states = []
        for input_gates, is_alive in zip(gates.unbind(1), alive_by_agent, strict=True):
            after = step(input_gates, self._product(self.hidden_gates, state[0]), state)
            if is_alive is not None:
                after = tuple(torch.where(is_alive, new, old) for new, old in zip(after, state, strict=True))
            state = after
            states.append(state[0])
        return torch.stack(states)

    def _gru(self, from_input: Tensor, from_hidden: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        size = [2 * self.hidden_size, self.hidden_size]
        (input_gates, input_new), (hidden_gates, hidden_new) = from_input.split(size, -1), from_hidden.split(size, -1)
        reset, update = torch.sigmoid(input_gates + hidden_gates).chunk(2, -1)
        new = torch.tanh(torch.addcmul(input_new, reset, hidden_new))
        return (torch.lerp(new, state[0], update),)

    def _lstm(self, from_input: Tensor, from_hidden: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        input_gate, forget_gate, new, output_gate = (from_input + from_hidden).chunk(4, -1)
        cell = torch.sigmoid(forget_gate) * state[1] + torch.sigmoid(input_gate) * torch.tanh(new)
        return torch.sigmoid(output_gate) * torch.tanh(cell), cell


def _both_directions(x: Tensor) -> Tensor:
    """``[B, n, F]`` as ``[2, n, B, F]``: from the first agent to the last, and from the last to the first."""
    first = x.transpose(0, 1)
    return torch.stack([first, first.flip(0)])


class MultiAgentBiCNet(MultiAgentChannelNetwork):
    """BiCNet: agents that talk through a recurrent layer along the agent axis: ``[*B, n, F] -> [*B, n, G]``.

    Peng et al. 2017, "Multiagent Bidirectionally-Coordinated Nets", section 4: a ``MultiAgentChannelNetwork`` whose
    channel is a ``BidirectionalRNN`` and whose linear head also reads the agent's own input. It serves as the
    network of an actor, which reads observations, or of a critic, which also reads actions. The agents' order matters,
    so two agents with equal inputs may give different outputs.

    Args:
        in_features: F.
        out_features: G.
        n_agents: size of the agent axis; the weights do not depend on it.
        hidden_size: H, of the encoder's output and of both directions together.
        cell: ``gru`` or ``lstm``, of the layer over agents.
        recurrent: the encoder is a GRU over time, else a multilayer perceptron.
        out_gain: gain of an orthogonal initialization of the head, as in ``MultiAgentMLP``.
        options: other options of the encoder: ``num_cells``, ``activation_class``, ``layer_norm``.

    Raises:
        UserError: for an odd ``hidden_size``, an unknown ``cell``, or a mask of another shape.

    >>> import torch
    >>> from ctde_kit.modules import MultiAgentBiCNet
    >>> MultiAgentBiCNet(5, 2, n_agents=3, hidden_size=8)(torch.zeros(7, 3, 5)).shape
    torch.Size([7, 3, 2])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        n_agents: int,
        *,
        hidden_size: int = 128,
        cell: Cell = "gru",
        recurrent: bool = False,
        out_gain: float | None = None,
        **options: Unpack[EncoderOptions],
    ):
        if hidden_size % 2:
            raise UserError(f"hidden_size={hidden_size}: expected an even number, half of it for each direction")
        encoder = ChannelEncoder(in_features, hidden_size, n_agents, recurrent=recurrent, out_gain=out_gain, **options)
        channel = BidirectionalRNN(hidden_size, hidden_size // 2, cell)
        super().__init__(encoder, channel, out_features, head_sees_input=True, out_gain=out_gain)
