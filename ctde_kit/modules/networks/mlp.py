"""A feed-forward network for each agent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ctde_kit.modules.networks.linear import AgentLinear, use_layers_of_agent
from ctde_kit.modules.networks.sharing import ShareParams


class MultiAgentMLP(nn.Module):
    """A multilayer perceptron for each of ``n_agents``: ``[*B, n_agents, F] -> [*B, n_agents, G]``.

    TorchRL's ``MultiAgentMLP`` runs functional parameters under ``vmap``; this one has plain layers (one matrix product
    where weights are shared, a batched one where not), so it compiles into one graph. Its agents may also share
    parameters in clusters, and it never mixes agents: a centralized critic gets the team's data from its input.

    Args:
        in_features: F.
        out_features: G.
        n_agents: size of the agent axis.
        share_params: one set for all agents (``True``), one per agent (``False``), or the index of each agent's set.
        num_cells: widths of the hidden layers; one number for one layer.
        activation_class: makes the activation between layers.
        layer_norm: normalize each hidden layer before its activation, without learned parameters.
        out_gain: gain of an orthogonal initialization of the last layer; the layers before get ``sqrt(2)``, as in the
            MAPPO paper (Yu et al. 2022, table 7: 0.01 for actors). ``None``: PyTorch's default.

    >>> import torch
    >>> from ctde_kit.modules import MultiAgentMLP
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
        num_cells: int | Sequence[int] = (256, 256),
        activation_class: Callable[[], nn.Module] = nn.Tanh,
        layer_norm: bool = False,
        out_gain: float | None = None,
    ):
        super().__init__()
        num_cells = (num_cells,) if isinstance(num_cells, int) else num_cells
        self.sizes = (in_features, *num_cells, out_features)
        layers = [AgentLinear(n_in, n_out, n_agents, share_params) for n_in, n_out in pairwise(self.sizes)]
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
        """Outputs, from the output of the first layer."""
        for norm, layer in zip(self.norms, self.layers[1:], strict=True):
            x = layer(self.activation(norm(x)))
        return x

    def for_agent(self, agent: int) -> MultiAgentMLP:
        """The network of one agent, on the same storage."""
        in_features, *num_cells, out_features = self.sizes
        with torch.device("meta"):  # nothing is allocated, and no random number is drawn
            single = MultiAgentMLP(
                in_features, out_features, 1, num_cells=num_cells, activation_class=lambda: self.activation
            )
        single.norms = self.norms
        use_layers_of_agent(single, self, agent)
        return single


def norms(num_cells: Sequence[int], layer_norm: bool) -> nn.ModuleList:
    """The normalization between each hidden layer and its activation; identities without ``layer_norm``."""
    return nn.ModuleList(
        nn.LayerNorm(width, elementwise_affine=False) if layer_norm else nn.Identity() for width in num_cells
    )


def initialize(layers: Sequence[AgentLinear], out_gain: float | None) -> None:
    """Give the layers orthogonal weights of gain ``sqrt(2)``, the last one ``out_gain``; ``None`` changes nothing."""
    if out_gain is None:
        return
    for layer in layers[:-1]:
        layer.reset_parameters(2**0.5)
    layers[-1].reset_parameters(out_gain)
