"""The small interfaces that the packages share without importing each other."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from tensordict import TensorDictBase
from torch import Tensor


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
        """At least ``count`` fresh initial states, one per row, as a part of what ``tensor_state`` reads."""
        ...

    def resets_to(self, fresh: TensorDictBase, /) -> AbstractContextManager[None]:
        """Inside the block steps are eager, and partial resets take the rows of ``fresh`` ``[n_envs]``."""
        ...
