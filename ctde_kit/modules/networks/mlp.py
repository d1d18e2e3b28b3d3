"""Feed-forward networks over the agent axis."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from ctde_kit.modules.networks.linear import AgentLinear, layers_for_agent
from ctde_kit.modules.networks.sharing import ShareParams


class MultiAgentMLP(nn.Module):
    """A perceptron for each of ``n_agents``: ``[*B, n_agents, F] -> [*B, n_agents, G]``.

    Args:
        in_features: F.
        out_features: G.
        n_agents: size of the agent axis.
        share_params: one set for all (``True``), one an agent (``False``), or the set of each agent.
        num_cells: widths of the hidden layers.
        activation_class: the activation between layers.
        layer_norm: normalize each hidden layer before its activation, without parameters of its own.
        out_gain: gain of an orthogonal initialization of the last layer, with ``sqrt(2)`` before it, as the MAPPO
            paper has it (Yu et al. 2022, table 7: 0.01 for actors); ``None`` for PyTorch's default.

    >>> import torch
    >>> MultiAgentMLP(5, 2, n_agents=3, num_cells=(8,))(torch.zeros(4, 3, 5)).shape
    torch.Size([4, 3, 2])
    """

    recurrent = False

    def __init__(
        self,
        in_features: int,
        out_features: int,
        n_agents: int,
        *,
        share_params: ShareParams = True,
        num_cells: Sequence[int] = (256, 256),
        activation_class: type[nn.Module] = nn.Tanh,
        layer_norm: bool = False,
        out_gain: float | None = None,
    ):
        super().__init__()
        sizes = [in_features, *num_cells, out_features]
        layers = [AgentLinear(n_in, n_out, n_agents, share_params) for n_in, n_out in pairwise(sizes)]
        self.layers = nn.ModuleList(layers)
        self.activation = activation_class()
        self.norms = norms(num_cells, layer_norm)
        initialize(layers, out_gain)

    @property
    def first(self) -> AgentLinear:
        """The layer that reads the features."""
        layer = self.layers[0]
        assert isinstance(layer, AgentLinear)
        return layer

    def forward(self, x: Tensor) -> Tensor:
        return self.after_first(self.first(x))

    def after_first(self, x: Tensor) -> Tensor:
        """Outputs from what the first layer gave."""
        for norm, layer in zip(self.norms, self.layers[1:], strict=True):
            x = layer(self.activation(norm(x)))
        return x

    def for_agent(self, agent: int) -> MultiAgentMLP:
        """The network of one agent, on the same storage."""
        network = MultiAgentMLP.__new__(MultiAgentMLP)
        nn.Module.__init__(network)
        network.layers = layers_for_agent(self.layers, agent)
        network.activation, network.norms = self.activation, self.norms
        return network


def norms(num_cells: Sequence[int], layer_norm: bool) -> nn.ModuleList:
    """What stands between each hidden layer and its activation."""
    return nn.ModuleList(
        nn.LayerNorm(width, elementwise_affine=False) if layer_norm else nn.Identity() for width in num_cells
    )


def initialize(layers: Sequence[AgentLinear], out_gain: float | None) -> None:
    """Orthogonal weights, ``sqrt(2)`` and ``out_gain`` for the last layer, unless ``out_gain`` is ``None``."""
    if out_gain is None:
        return
    for layer in layers[:-1]:
        layer.reset_parameters(2**0.5)
    layers[-1].reset_parameters(out_gain)
