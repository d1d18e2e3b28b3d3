"""The small interfaces that the packages share without importing each other."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Stateful(Protocol):
    """A part whose state a checkpoint keeps."""

    def state_dict(self) -> dict[str, Any]:
        """All that must be restored, as tensors and plain values."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any:
        """Take over a state that ``state_dict`` gave."""
        ...
