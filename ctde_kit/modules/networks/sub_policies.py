"""A network that holds several sub-policies, of which each agent follows one per episode."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ctde_kit.errors import UserError
from ctde_kit.modules.networks.agent_network import is_recurrent, reads_mask
from ctde_kit.modules.networks.sizes import NetworkOutput
from ctde_kit.protocols import HasForAgent


class SubPolicies(nn.Module):
    """K networks of one shape, of which each agent's last features choose one.

    Maps ``[*B, n_agents, F + K]`` to ``[*B, n_agents, G]``: the last K features are the one-hot index, as
    ``own_observation(group, sub_policies=K)`` appends it; the networks do not see it. Only the chosen network gets a
    gradient. Recurrent networks have one hidden state ``[*B, n_agents, H]``, the chosen one's: the index changes only
    at an episode's start, where the state is zero.

    Args:
        networks: K networks, ``[*B, n_agents, F] -> [*B, n_agents, G]``.

    Raises:
        UserError: for networks with a channel between agents.

    >>> import torch
    >>> from ctde_kit.modules import MultiAgentMLP, SubPolicies
    >>> network = SubPolicies([MultiAgentMLP(5, 2, n_agents=3) for _ in range(4)])
    >>> network(torch.zeros(7, 3, 5 + 4)).shape
    torch.Size([7, 3, 2])
    """

    def __init__(self, networks: Sequence[nn.Module]):
        super().__init__()
        if any(reads_mask(network) for network in networks):
            raise UserError(
                "SubPolicies: through a channel each agent would hear the others as if they followed its sub-policy, "
                "too; give networks without a channel, such as MultiAgentMLP or MultiAgentGRU"
            )
        self.networks = nn.ModuleList(networks)
        first = networks[0]
        self.recurrent = is_recurrent(first)
        self.hidden_size = first.hidden_size if is_recurrent(first) else 0

    def forward(self, x: Tensor, *carried: Tensor) -> NetworkOutput:
        """The chosen outputs; recurrent networks, which also take hidden state and ``is_init``, add hidden states."""
        features, choice = self._split(x)
        if not self.recurrent:
            return _chosen([network(features) for network in self.networks], choice)
        return _chosen_steps([network(features, *carried) for network in self.networks], choice)

    def unroll(self, x: Tensor, hidden: Tensor, is_init: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All steps of recurrent networks along time, as ``MultiAgentGRU.unroll`` computes them."""
        features, choice = self._split(x)
        networks = [network for network in self.networks if is_recurrent(network)]
        return _chosen_steps([network.unroll(features, hidden, is_init) for network in networks], choice)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        size = len(self.networks)
        # Contiguous, as a single network would see it, so that K=1 gives the same numbers, bit for bit.
        return x[..., :-size].contiguous(), x[..., -size:]

    def for_agent(self, agent: int) -> SubPolicies:
        """The sub-policies of one agent, on the same storage."""
        single: list[nn.Module] = []
        for network in self.networks:
            assert isinstance(network, HasForAgent)
            single.append(network.for_agent(agent))
        return SubPolicies(single)


def _chosen(outputs: Sequence[Tensor], choice: Tensor) -> Tensor:
    """The chosen network's outputs, by the one-hot ``choice`` ``[*B, n_agents, K]``."""
    return (torch.stack([*outputs], -2) * choice.unsqueeze(-1)).sum(-2)


def _chosen_steps(steps: list[tuple[Tensor, Tensor, Tensor]], choice: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The chosen network's outputs and hidden states after and before the step."""
    outputs, after, before = zip(*steps, strict=True)
    return _chosen(outputs, choice), _chosen(after, choice), _chosen(before, choice)
