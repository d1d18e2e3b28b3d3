"""The small interfaces that the packages share without importing each other."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

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
