"""Conversion of TensorDicts to nested dictionaries, which a checkpoint can save and load safely, and back."""

from __future__ import annotations

from tensordict import TensorDict, TensorDictBase

from ctde_kit.protocols import StateDict


def to_state(tensordict: TensorDictBase | None) -> StateDict | None:
    """Copies of all entries, and the batch size of every level, as nested dictionaries."""
    if tensordict is None:
        return None
    entries = {
        key: to_state(value) if isinstance(value, TensorDictBase) else value.detach().clone()
        for key, value in tensordict.items()
    }
    return {"batch_size": list(tensordict.batch_size), "entries": entries}


def from_state(state: StateDict | None) -> TensorDict | None:
    """A copy of the TensorDict that ``to_state`` was given."""
    if state is None:
        return None
    entries = {
        key: from_state(value) if isinstance(value, dict) else value.clone() for key, value in state["entries"].items()
    }
    return TensorDict(entries, state["batch_size"])
