"""Protocols of networks and critics: hidden states, masks, entries, orders of agents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from tensordict import TensorDictBase
from torch import Tensor, nn

from ctde_kit.capability import Capability
from ctde_kit.entry_tables import Entry
from ctde_kit.keys import Key


@runtime_checkable
class KeepsHiddenState(Capability, Protocol):
    """A module that is recurrent where its ``hidden_key`` is not ``None``, such as ``AgentNetwork``."""

    @property
    def hidden_key(self) -> Key | None:
        """Where it reads its hidden state, and under ``next`` writes the one after the step; ``None``: it has none."""
        ...


class RecurrentModule(Protocol):
    """A module that reads its hidden state at ``hidden_key`` and writes the next one under ``next``."""

    @property
    def hidden_key(self) -> Key:
        """Where it reads its hidden state."""
        ...

    @property
    def hidden_shape(self) -> tuple[int, ...]:
        """The shape of one hidden state, without batch dimensions."""
        ...


@runtime_checkable
class DeclaresEntries(Capability, Protocol):
    """A module that says what the entries that it reads look like, such as ``AgentNetwork``.

    Losses check these entries before they run the module. Of other modules they know only the keys.
    """

    @property
    def in_entries(self) -> Sequence[Entry]:
        """The entries at its ``in_keys``; some may be left out."""
        ...


@runtime_checkable
class HasForAgent(Capability, Protocol):
    """A network that can be split into one network per agent, such as ``MultiAgentMLP``."""

    def for_agent(self, agent: int, /) -> nn.Module:
        """The network of one agent alone, on the same storage."""
        ...


@runtime_checkable
class SaysRecurrent(Capability, Protocol):
    """A network that says whether it carries a hidden state from step to step."""

    @property
    def recurrent(self) -> bool:
        """Whether it takes a hidden state and ``is_init``, and gives the next hidden state."""
        ...


@runtime_checkable
class SaysReadsMask(Capability, Protocol):
    """A network that says whether it needs to know which agents are alive."""

    @property
    def reads_mask(self) -> bool:
        """Whether it takes the argument ``mask``, bool ``[*B, n_agents]``."""
        ...


@runtime_checkable
class SaysDecentralized(Capability, Protocol):
    """A network, actor or critic that says whether agents are kept apart."""

    @property
    def decentralized(self) -> bool:
        """Whether agent i's output depends on agent i's input alone."""
        ...


@runtime_checkable
class SaysCentralized(Capability, Protocol):
    """A network of TorchRL that says the opposite of ``decentralized``: whether agents see each other's inputs."""

    @property
    def centralized(self) -> bool:
        """Whether agent i's output depends on the other agents' inputs, too."""
        ...


@runtime_checkable
class DrawsOrders(Capability, Protocol):
    """A critic that sees agents in random orders, such as ``RandomOrderCritic``."""

    @property
    def order_keys(self) -> Sequence[Key]:
        """Where it reads the order of each group, int64 ``[*B, n_agents]``."""
        ...

    def draw_order(self, tensordict: TensorDictBase, /) -> TensorDictBase:
        """Write the orders that are not there yet, at the root and under ``next``."""
        ...


@runtime_checkable
class SwapsOwnAction(Capability, Protocol):
    """A critic of actions that can swap one agent's action at less cost than one pass per agent."""

    @property
    def swaps_own_action(self) -> bool:
        """Whether ``own_action_values`` can be computed for this network."""
        ...

    def own_action_values(self, tensordict: TensorDictBase, action: Tensor, /) -> Tensor:
        """Each agent's value ``[*K, *B, n_agents, 1]`` if it alone takes its action in ``action``.

        ``action`` is ``[*K, *B, n_agents, D]``; the other agents' actions are those in ``tensordict`` ``[*B]``.
        """
        ...


@runtime_checkable
class ComputesSomeAgents(Capability, Protocol):
    """A network or critic for each agent of a group that can leave agents out, such as ``AgentNetwork``."""

    def compute_only(self, agents: slice | None, /) -> None:
        """From now on compute these agents and give 0 for the others, where agents do not hear each other.

        Args:
            agents: ``None``: all of them.
        """
        ...
