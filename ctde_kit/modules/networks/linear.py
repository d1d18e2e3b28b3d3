"""Linear layers over the agent axis, with shared or separate weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ctde_kit.modules.networks.sharing import ShareParams, parameter_sets


class AgentLinear(nn.Module):
    """A linear map for each of ``n_agents``: ``[*B, n_agents, F] -> [*B, n_agents, G]``.

    With one parameter set it is a plain matrix product; with several it is one batched product of stacked weights.
    TorchRL's ``MultiAgentMLP`` keeps functional parameters under ``vmap`` instead, which cannot be compiled into
    one graph and costs several times more on a CPU.

    Args:
        in_features: F.
        out_features: G.
        n_agents: size of the agent axis.
        share_params: one set for all agents (``True``), one per agent (``False``), or the index of each agent's set.

    >>> AgentLinear(5, 2, n_agents=3, share_params=[0, 1, 0])(torch.zeros(7, 3, 5)).shape
    torch.Size([7, 3, 2])
    """

    def __init__(self, in_features: int, out_features: int, n_agents: int, share_params: ShareParams = True):
        super().__init__()
        self.in_features, self.out_features, self.n_agents = in_features, out_features, n_agents
        # The agents that it computes, ``None`` for all of them; the outputs of the others are 0.
        self.agents: slice | None = None
        self.sets = parameter_sets(share_params, n_agents)
        n_sets = max(self.sets) + 1
        self.weight = nn.Parameter(torch.empty(n_sets, out_features, in_features))
        self.bias = nn.Parameter(torch.empty(n_sets, out_features))
        self.reset_parameters()

    def reset_parameters(self, gain: float | None = None) -> None:
        """Initialize each set: PyTorch's default, or orthogonal weights of this gain and zero biases."""
        with torch.no_grad():
            for weight, bias in zip(self.weight, self.bias, strict=True):
                if gain is None:
                    bound = 1 / math.sqrt(self.in_features)
                    weight.uniform_(-bound, bound)
                    bias.uniform_(-bound, bound)
                else:
                    nn.init.orthogonal_(weight, gain)
                    bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weights_and_biases()
        if self.agents is None:
            return self._product(x, weight, bias)
        start, stop, _ = self.agents.indices(self.n_agents)
        if len(self.weight) > 1:
            weight, bias = weight[self.agents], bias[self.agents]
        return pad(self._product(x[..., self.agents, :], weight, bias), (0, 0, start, self.n_agents - stop))

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if len(self.weight) == 1:
            # Two dimensions, since inputs that are not contiguous would be traced as a batch of tiny products.
            rows = nn.functional.linear(x.reshape(-1, self.in_features), weight[0], bias[0])
            return rows.reshape(*x.shape[:-1], self.out_features)
        # With no agents the number of rows could not be told from the number of entries.
        flat = x.reshape(math.prod(x.shape[:-2]), *x.shape[-2:]).transpose(0, 1)
        out = torch.baddbmm(bias.unsqueeze(1), flat, weight.transpose(1, 2))
        return out.transpose(0, 1).reshape(*x.shape[:-1], self.out_features)

    def weights_and_biases(self) -> tuple[Tensor, Tensor]:
        """``[n_agents, G, F]`` and ``[n_agents, G]``; ``[1, G, F]`` and ``[1, G]`` where all agents share one set."""
        if len(self.weight) == 1 or self.sets == tuple(range(len(self.weight))):
            return self.weight, self.bias
        index = list(self.sets)
        return self.weight[index], self.bias[index]

    def swapped(self, output: Tensor, change: Tensor, column: int, *, same_column: bool = False) -> Tensor:
        """The ``output`` ``[*B, n or 1, G]`` for each agent i, if agent i alone changes D of the input features.

        ``change`` ``[*B, n, D]`` is the difference that is added to agent i's features. They begin at column
        ``column + i * D``, or with ``same_column`` at ``column`` in every row. So n inputs, each of which changes one
        agent's action, cost one product of the whole input and n small ones.

        >>> layer, x = AgentLinear(4, 2, n_agents=1), torch.ones(1, 4)
        >>> rows = layer.swapped(layer(x), torch.ones(2, 1), column=2)
        >>> torch.allclose(rows[1], layer(torch.tensor([[1.0, 1.0, 1.0, 2.0]]))[0])
        True
        """
        n_agents, size = change.shape[-2:]
        width = size if same_column else n_agents * size
        blocks = self.weight[..., column : column + width].unflatten(-1, (width // size, size))
        blocks = blocks.expand(-1, -1, n_agents, -1)
        weight = blocks[0].transpose(0, 1) if len(blocks) == 1 else blocks[list(self.sets), :, range(n_agents)]
        flat = change.reshape(-1, n_agents, size).transpose(0, 1)
        product = torch.bmm(flat, weight.transpose(1, 2)).transpose(0, 1)
        return output + product.reshape(*change.shape[:-1], self.out_features)

    def for_agent(self, agent: int) -> AgentLinear:
        """The layer of one agent, ``[*B, 1, F] -> [*B, 1, G]``, on the same storage."""
        with torch.device("meta"):  # nothing is allocated, and no random number is drawn
            layer = AgentLinear(self.in_features, self.out_features, 1)
        index = self.sets[agent]
        layer.weight = nn.Parameter(self.weight.data[index : index + 1])
        layer.bias = nn.Parameter(self.bias.data[index : index + 1])
        return layer

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, n_agents={self.n_agents}, parameter_sets={len(self.weight)}"


def use_layers_of_agent(single: nn.Module, network: nn.Module, agent: int) -> None:
    """Give ``single``, a network of one agent, that agent's layers of ``network``, on the same storage."""
    for name, layer in network.named_modules():
        if isinstance(layer, AgentLinear):
            single.set_submodule(name, layer.for_agent(agent))
