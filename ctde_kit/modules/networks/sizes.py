"""Checks that a network has the sizes that its actor or critic needs, so that nothing broadcasts silently."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from torch import Tensor, nn

from ctde_kit.errors import UserError
from ctde_kit.modules.networks.linear import AgentLinear

NetworkOutput: TypeAlias = Tensor | tuple[Tensor, Tensor, Tensor]
"""Outputs; of a recurrent network with the next hidden state, and the hidden state that was used."""


@runtime_checkable
class HasFirstLayer(Protocol):
    """A network that can run its first layer apart from the rest, such as ``MultiAgentMLP`` and ``MultiAgentGRU``."""

    @property
    def first(self) -> AgentLinear:
        """The layer that reads the features."""
        ...

    def after_first(self, x: Tensor, /, *carried: Tensor) -> NetworkOutput:
        """Outputs, from the output of the first layer."""
        ...


@dataclass(frozen=True)
class OutputSize:
    """The shape that a network's output must have: ``[*B, n_agents, size]``.

    Args:
        n_agents: rows, one per agent, or 1 for the whole team.
        size: outputs per row.
        meaning: where the size comes from and what else would fit, for the error.
    """

    n_agents: int
    size: int
    meaning: str

    def check(self, network: nn.Module, x: Tensor, output: object) -> None:
        """Raise ``UserError`` unless ``output``, of the input ``x`` ``[*B, n, F]``, has the right shape."""
        name = type(network).__name__
        if not isinstance(output, Tensor):
            raise UserError(
                f"the network {name} gave a {type(output).__name__}: expected one tensor; a recurrent network says "
                "`recurrent = True` and has `hidden_size` and `unroll`, as MultiAgentGRU does"
            )
        if output.shape != (*x.shape[:-2], self.n_agents, self.size):
            batch = ", ".join(map(str, x.shape[:-2]))
            raise UserError(
                f"the network {name} gave {list(output.shape)}: expected [{batch}, n_agents={self.n_agents}, "
                f"{self.size}], where {self.size} is {self.meaning}"
            )


def check_input(network: nn.Module, n_agents: int, features: int) -> None:
    """Raise ``UserError`` for a network of the kit that was built for other numbers of agents or features."""
    if not isinstance(network, HasFirstLayer) or not isinstance(network.first, AgentLinear):
        return
    first = network.first
    if (first.in_features, first.n_agents) != (features, n_agents):
        raise UserError(
            f"the network {type(network).__name__} is for in_features={first.in_features}, n_agents={first.n_agents}: "
            f"its input gives in_features={features}, n_agents={n_agents}; build it with these"
        )
