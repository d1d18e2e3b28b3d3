"""The network that encodes each agent's input before the agents communicate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypedDict

from torch import Tensor, nn

from ctde_kit.errors import UserError
from ctde_kit.modules.networks.gru import MultiAgentGRU
from ctde_kit.modules.networks.mlp import MultiAgentMLP
from ctde_kit.modules.networks.sizes import NetworkOutput


class EncoderOptions(TypedDict, total=False):
    """Optional arguments of ``ChannelEncoder``."""

    num_cells: Sequence[int]
    activation_class: Callable[[], nn.Module]
    layer_norm: bool


class ChannelEncoder(nn.Module):
    """The encoder in front of a channel: ``[*B, n, F] -> [*B, n, H]``, with one set of weights for all agents.

    It is a multilayer perceptron, or a GRU over time; both end in the activation. It never mixes agents.

    Args:
        in_features: F.
        hidden_size: H, also the size of the GRU's state.
        n_agents: size of the agent axis; the weights do not depend on it.
        recurrent: a GRU over time.
        num_cells: widths of the layers before the last one, or before the GRU.
        activation_class: makes the activation between layers and after the last.
        layer_norm: as in ``MultiAgentMLP``.
        out_gain: if given, whatever its value, weights are orthogonal with gain ``sqrt(2)``, as in ``MultiAgentMLP``
            before its last layer.

    Raises:
        UserError: for a ``hidden_size`` below 1.

    >>> import torch
    >>> ChannelEncoder(5, 8, n_agents=3)(torch.zeros(7, 3, 5)).shape
    torch.Size([7, 3, 8])
    """

    def __init__(
        self,
        in_features: int,
        hidden_size: int,
        n_agents: int,
        *,
        recurrent: bool = False,
        num_cells: Sequence[int] = (128,),
        activation_class: Callable[[], nn.Module] = nn.Tanh,
        layer_norm: bool = False,
        out_gain: float | None = None,
    ):
        super().__init__()
        if hidden_size < 1:
            raise UserError(f"hidden_size={hidden_size}: expected 1 or more")
        make_network = partial(MultiAgentGRU, hidden_size=hidden_size) if recurrent else MultiAgentMLP
        self.network = make_network(
            in_features,
            hidden_size,
            n_agents,
            num_cells=num_cells,
            activation_class=activation_class,
            layer_norm=layer_norm,
            out_gain=None if out_gain is None else 2**0.5,
        )
        self.in_features, self.hidden_size, self.n_agents = in_features, hidden_size, n_agents
        self.recurrent = recurrent
        self.activation = activation_class()

    def forward(self, x: Tensor, *carried: Tensor) -> NetworkOutput:
        """Encodings; a GRU, which also takes hidden state and ``is_init``, adds the hidden states after and before."""
        if not self.recurrent:
            return self.activation(self.network(x))
        encoded, after, before = self.network(x, *carried)
        return self.activation(encoded), after, before

    def unroll(self, x: Tensor, hidden: Tensor, is_init: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encodings of all steps along time, as ``MultiAgentGRU.unroll`` computes them."""
        assert isinstance(self.network, MultiAgentGRU)
        encoded, after, before = self.network.unroll(x, hidden, is_init)
        return self.activation(encoded), after, before
