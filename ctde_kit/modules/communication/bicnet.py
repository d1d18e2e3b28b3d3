"""A channel that is recurrent along the agent axis, in both directions."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ctde_kit.errors import UserError
from ctde_kit.modules.communication.channel_encoder import ChannelEncoder, silenced
from ctde_kit.modules.networks.linear import AgentLinear

Cell = Literal["gru", "lstm"]
GATES = {"gru": 3, "lstm": 4}


class BidirectionalRNN(nn.Module):
    """A GRU or LSTM along the agent axis and one against it: ``[*B, n, F] -> [*B, n, 2 * H]``.

    A dead agent leaves the state as it is, so for the living the dead are not there; it hears nothing, that is zeros.
    Plain steps, both directions at once: PyTorch's packed sequences look at their data, which a graph cannot.

    Args:
        in_features: F.
        hidden_size: H, of each direction.
        cell: ``gru`` or ``lstm``, in PyTorch's form of the gates.

    Raises:
        UserError: for another word in ``cell``.

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
        flat = _in_turn(x.reshape(-1, *x.shape[-2:]))
        gates = self._product(self.input_gates, flat.flatten(1, 2))
        alive = None if mask is None else _in_turn(mask.reshape(-1, mask.shape[-1], 1))
        states = self._states(gates.unflatten(1, flat.shape[1:3]), alive)
        both = torch.cat([states[:, 0], states[:, 1].flip(0)], -1).transpose(0, 1)
        return silenced(both.reshape(*x.shape[:-1], self.out_features), mask)

    @staticmethod
    def _product(layer: AgentLinear, x: Tensor) -> Tensor:
        """``[2, B, F] -> [2, B, G]``: as the layer has it, but with the directions first."""
        return torch.baddbmm(layer.bias.unsqueeze(1), x, layer.weight.transpose(1, 2))

    def _states(self, gates: Tensor, alive: Tensor | None) -> Tensor:
        """The states ``[n, 2, B, H]`` after each agent, from ``gates`` ``[2, n, B, G]``."""
        step = self._gru if self.cell == "gru" else self._lstm
        hidden = gates.new_zeros(2, gates.shape[2], self.hidden_size)
        state: tuple[Tensor, ...] = (hidden,) if self.cell == "gru" else (hidden, hidden)
        # One unbind: the gradient of n slices would be n tensors of the whole.
        here: Any = [None] * gates.shape[1] if alive is None else alive.unbind(1)
        states = []
        for own, is_here in zip(gates.unbind(1), here, strict=True):
            after = step(own, self._product(self.hidden_gates, state[0]), state)
            if is_here is not None:
                after = tuple(torch.where(is_here, new, old) for new, old in zip(after, state, strict=True))
            state = after
            states.append(state[0])
        return torch.stack(states)

    def _gru(self, own: Tensor, heard: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        size = [2 * self.hidden_size, self.hidden_size]
        (own_gates, own_new), (heard_gates, heard_new) = own.split(size, -1), heard.split(size, -1)
        reset, update = torch.sigmoid(own_gates + heard_gates).chunk(2, -1)
        new = torch.tanh(torch.addcmul(own_new, reset, heard_new))
        return (torch.lerp(new, state[0], update),)

    def _lstm(self, own: Tensor, heard: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        enter, forget, new, leave = (own + heard).chunk(4, -1)
        memory = torch.sigmoid(forget) * state[1] + torch.sigmoid(enter) * torch.tanh(new)
        return torch.sigmoid(leave) * torch.tanh(memory), memory


def _in_turn(x: Tensor) -> Tensor:
    """``[B, n, F]`` as ``[2, n, B, F]``: from the first agent to the last, and from the last to the first."""
    first = x.transpose(0, 1)
    return torch.stack([first, first.flip(0)])


class MultiAgentBiCNet(nn.Module):
    """Agents that talk through a recurrent layer along the agent axis: ``[*B, n_agents, F] -> [*B, n_agents, G]``.

    Peng et al. 2017, "Multiagent Bidirectionally-Coordinated Nets", section 4: a shared encoder, a bidirectional
    recurrent layer over the agents, and a shared linear head on what the layer gives and the agent's own input. An
    actor of observations, or a critic of observations and actions. Agents are in order, so they need not act alike.
    With ``recurrent`` the encoder is a GRU over time, with ``MultiAgentGRU``'s hidden state ``[*B, n_agents, H]``,
    ``is_init`` and ``unroll``. Reads ``mask`` bool ``[*B, n_agents]``, who is alive: for the living the dead are not
    there.

    Args:
        in_features: F.
        out_features: G.
        n_agents: size of the agent axis; the weights do not depend on it.
        hidden_size: H, of the encoder's output and of both directions together.
        cell: ``gru`` or ``lstm``, of the layer over agents.
        recurrent: the encoder is a GRU over time, else a perceptron.
        out_gain: gain of an orthogonal initialization of the head, as in ``MultiAgentMLP``.
        encoder: other options of ``ChannelEncoder``.

    Raises:
        UserError: for an odd ``hidden_size``, another word in ``cell``, a mask of another shape.

    >>> MultiAgentBiCNet(5, 2, n_agents=3, hidden_size=8)(torch.zeros(7, 3, 5)).shape
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
        cell: Cell = "gru",
        recurrent: bool = False,
        out_gain: float | None = None,
        **encoder: Any,
    ):
        super().__init__()
        if hidden_size % 2:
            raise UserError(f"hidden_size={hidden_size}: expected an even number, half of it for each direction")
        self.recurrent, self.hidden_size = recurrent, hidden_size
        self.encoder = ChannelEncoder(
            in_features, hidden_size, n_agents, recurrent=recurrent, out_gain=out_gain, **encoder
        )
        self.channel = BidirectionalRNN(hidden_size, hidden_size // 2, cell)
        self.head = AgentLinear(hidden_size + in_features, out_features, n_agents)
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
        return self.head(torch.cat([self.channel(encoded, mask), x], -1))
