"""Policies made of several sub-policies, of which each agent follows one an episode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ctde_kit.errors import UserError
from ctde_kit.modules.networks.agent_network import is_recurrent, reads_mask


class SubPolicies(nn.Module):
    """Several networks of one shape; each agent's output is of the one that its last features choose.

    Maps ``[*B, n_agents, F + K]`` to ``[*B, n_agents, G]``: the last K features are the one-hot index, as
    ``own_observation(group, sub_policies=K)`` appends it, and are not shown to the networks. Recurrent networks share
    one hidden state ``[*B, n_agents, H]``, that of the chosen one: an index changes only where an episode starts, from
    zero. The others get no gradient.

    Args:
        networks: K of them, ``[*B, n_agents, F] -> [*B, n_agents, G]``.

    Raises:
        UserError: for networks with a channel between agents.

    >>> from ctde_kit.modules import MultiAgentMLP
    >>> network = SubPolicies([MultiAgentMLP(5, 2, n_agents=3) for _ in range(4)])
    >>> network(torch.zeros(7, 3, 5 + 4)).shape
    torch.Size([7, 3, 2])
    """

    def __init__(self, networks: Sequence[nn.Module]):
        super().__init__()
        if any(reads_mask(network) for network in networks):
            raise UserError(
                "sub-policies: with a channel agents would hear what others, who follow another sub-policy, "
                "never say; leave ensemble_size=1, or use a network without a channel (network@actor=mlp or gru)"
            )
        self.networks = nn.ModuleList(networks)
        first = networks[0]
        self.recurrent = is_recurrent(first)
        self.hidden_size = first.hidden_size if is_recurrent(first) else 0

    def forward(self, x: Tensor, *carried: Tensor) -> Any:
        """Outputs; of one step of recurrent networks, with the hidden state and ``is_init``, what they give."""
        seen, choice = self._split(x)
        return _chosen([network(seen, *carried) for network in self.networks], choice)

    def unroll(self, x: Tensor, hidden: Tensor, is_init: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Steps of recurrent networks along time, as ``MultiAgentGRU.unroll`` has it."""
        seen, choice = self._split(x)
        networks: list[Any] = list(self.networks)
        return _chosen([network.unroll(seen, hidden, is_init) for network in networks], choice)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        size = len(self.networks)
        # Contiguous, as a network alone would see it: then one of them gives the same numbers, bit for bit.
        return x[..., :-size].contiguous(), x[..., -size:]

    def for_agent(self, agent: int) -> SubPolicies:
        """The sub-policies of one agent, on the same storage."""
        networks: list[Any] = list(self.networks)
        return SubPolicies([network.for_agent(agent) for network in networks])


def _chosen(outputs: list[Any], choice: Tensor) -> Any:
    """The sum of ``outputs`` by the one-hot ``choice`` ``[*B, n_agents, K]``, for each part of tuples."""
    if isinstance(outputs[0], tuple):
        return tuple(_chosen(list(parts), choice) for parts in zip(*outputs, strict=True))
    return (torch.stack(outputs, -2) * choice.unsqueeze(-1)).sum(-2)
