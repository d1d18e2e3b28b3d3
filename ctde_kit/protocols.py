"""The small interfaces that the packages share without importing each other."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from tensordict import TensorDictBase
from torch import Tensor

from ctde_kit.keys import Key


@runtime_checkable
class Stateful(Protocol):
    """A part whose state a checkpoint keeps."""

    def state_dict(self) -> dict[str, Any]:
        """All that must be restored, as tensors and plain values."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any:
        """Take over a state that ``state_dict`` gave."""
        ...


class ReturnScale(Protocol):
    """The units in which a critic learns returns; a module, so that its statistics are kept with its owner's."""

    def update(self, returns: Tensor, mask: Tensor | None = None, /) -> None:
        """Take in the returns where ``mask``, bool and of the same shape, is true."""
        ...

    def normalize(self, returns: Tensor, /) -> Tensor:
        """Returns in units of the critic's outputs."""
        ...

    def denormalize(self, values: Tensor, /) -> Tensor:
        """The critic's outputs in units of returns."""
        ...


@runtime_checkable
class KeepsHiddenState(Protocol):
    """A module that is recurrent where its ``hidden_key`` is not ``None``, such as ``AgentNetwork``."""

    hidden_key: Key | None


class RecurrentModule(Protocol):
    """A module that reads its hidden state at ``hidden_key`` and writes the next one under ``next``."""

    hidden_key: Key

    @property
    def hidden_shape(self) -> tuple[int, ...]:
        """The shape of one hidden state, without batch dimensions."""
        ...


@runtime_checkable
class DrawsOrders(Protocol):
    """A critic that sees agents in drawn orders, such as ``RandomOrderCritic``."""

    order_keys: list[Key]

    def draw_order(self, tensordict: TensorDictBase, /) -> TensorDictBase:
        """Write the orders that are not there yet, at the root and under ``next``."""
        ...


@runtime_checkable
class SwapsOwnAction(Protocol):
    """A critic of actions that can swap one agent's action at less cost than one pass per agent."""

    @property
    def swaps_own_action(self) -> bool:
        """Whether ``own_action_values`` can be computed for this network."""
        ...

    def own_action_values(self, tensordict: TensorDictBase, action: Tensor, /) -> Tensor:
        """The value ``[*B, n_agents, 1]`` for each agent where it alone takes its action of ``action``."""
        ...


class StateAccess(Protocol):
    """An env's state as a TensorDict."""

    def read(self) -> TensorDictBase:
        """The state at this moment."""
        ...

    def write(self, state: TensorDictBase, /) -> None:
        """Take over a state."""
        ...


@runtime_checkable
class PureEnv(Stateful, Protocol):
    """An env whose step and partial reset can be functions of tensors alone."""

    @property
    def tensor_state(self) -> StateAccess:
        """Reads and writes its state; raises ``TraceError`` where that cannot be done."""
        ...

    def draw_initial_states(self, count: int, /) -> TensorDictBase:
        """At least ``count`` fresh initial states, one a row, as a part of what ``tensor_state`` reads."""
        ...

    def resets_to(self, fresh: TensorDictBase, /) -> AbstractContextManager[None]:
        """Inside the block steps are plain, and partial resets take the rows of ``fresh`` ``[n_envs]``."""
        ...
