"""Protocols of parts and envs whose state a checkpoint saves."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeAlias, runtime_checkable

from tensordict import TensorDictBase

from ctde_kit.capability import Capability

StateDict: TypeAlias = dict[str, Any]
"""What a part saves in a checkpoint, by name: tensors, plain Python values, and dictionaries and lists of these."""


@runtime_checkable
class Stateful(Capability, Protocol):
    """A part whose state a checkpoint saves."""

    def state_dict(self) -> StateDict:
        """All that must be restored, as tensors and plain Python values."""
        ...

    def load_state_dict(self, state_dict: StateDict, /) -> object:
        """Restore a state that ``state_dict`` returned."""
        ...


@runtime_checkable
class ReportsCapture(Capability, Protocol):
    """An env that says whether ``state_dict`` captures its whole state; an env that says nothing captures it."""

    @property
    def state_is_captured(self) -> bool:
        """False if the state cannot be read; then taking a checkpoint ends the running episodes."""
        ...


class StateAccess(Protocol):
    """An env's state as a TensorDict."""

    def read(self) -> TensorDictBase:
        """The state at this moment."""
        ...

    def write(self, state: TensorDictBase, /) -> None:
        """Replace the env's state."""
        ...


@runtime_checkable
class PureEnv(Stateful, Protocol):
    """An env whose step and partial reset can be functions of tensors alone."""

    @property
    def tensor_state(self) -> StateAccess:
        """What reads and writes its state; raises ``TraceError`` where that cannot be done."""
        ...

    def draw_initial_states(self, count: int, /) -> TensorDictBase:
        """At least ``count`` fresh initial states, one per row, as a part of what ``tensor_state`` reads."""
        ...

    def resets_to(self, fresh: TensorDictBase, /) -> AbstractContextManager[None]:
        """Inside the block steps are eager, and partial resets take the rows of ``fresh`` ``[n_envs]``."""
        ...
