"""The state of a VMAS world as plain data, to go on from it in an env that is built alike."""

from __future__ import annotations

import enum
from collections import deque
from typing import Any

import numpy as np
import torch
from torch import Tensor
from vmas.simulator.environment import Environment

from ctde_kit.envs.vmas.world_slots import (
    SKIPPED,
    Slot,
    has_entries,
    is_number_array,
    is_value,
    like,
)
from ctde_kit.envs.vmas.world_state import WorldState
from ctde_kit.protocols import StateDict

Saved = tuple[str, Any]
"""The kind of a saved key or value, and what stands for it: itself, a copy, a path, or the keys of what it holds."""
_KEPT: Saved = ("kept", None)
_CONTAINERS: dict[str, type] = {"list": list, "deque": deque, "dict": dict}


def snapshot(state: WorldState) -> StateDict:
    """Copies of all that a world holds, and the paths that references point to.

    What cannot be read (``WorldState.unreadable``) is not in it.
    """
    writer = _Writer(state)
    slots = [*state.python.values(), *((state.tensors[path], value) for path, value in state.values.items())]
    entries = [
        (slot.path, slot.owner_path, writer.key(slot.key), writer.saved(value, slot.path))
        for slot, value in slots
        if not isinstance(slot.owner, Slot)  # a tuple has its items itself
    ]
    return {"entries": entries}


def restore(state: WorldState, saved: StateDict) -> None:
    """Write a snapshot of an env that was built alike into the slots of another.

    Args:
        state: of the env to write into.
        saved: what ``snapshot`` gave.

    Raises:
        ValueError: where the env has no object of a name that the snapshot holds.
    """
    reader = _Reader(state)
    for path, owner_path, key, value in saved["entries"]:
        if value != _KEPT:
            Slot(path, owner_path, reader.object_at(owner_path), reader.key(key)).set(reader.value(value, path))


class _Writer:
    def __init__(self, state: WorldState) -> None:
        self.state = state
        self._copies: dict[int, Tensor] = {}

    def key(self, key: object) -> Saved:
        return ("value", key) if is_value(key) else ("reference", self.state.names.get(id(key)))

    def saved(self, value: Any, path: str) -> Saved:
        if isinstance(value, Tensor):
            return "tensor", self._copies.setdefault(id(value), value.clone())
        if is_value(value):
            return "value", value
        if is_number_array(value):
            kind = "array" if isinstance(value, np.ndarray) else "number"
            return kind, self._copies.setdefault(id(value), torch.from_numpy(np.array(value)))
        if isinstance(value, enum.Enum):
            return "member", value.name
        if isinstance(value, tuple):
            return "tuple", [self.saved(item, f"{path}.{number}") for number, item in enumerate(value)]
        if isinstance(value, (set, frozenset)):
            return (type(value).__name__, list(value)) if all(map(is_value, value)) else _KEPT
        if self.state.names.get(id(value), path) != path:
            return "reference", self.state.names[id(value)]
        return self._container(value) if has_entries(value) and path in self.state.objects else _KEPT

    def _container(self, value: object) -> Saved:
        if isinstance(value, list):
            return "list", len(value)
        if isinstance(value, deque):
            return "deque", (len(value), value.maxlen)
        # An object is never made anew: what it holds has entries of its own.
        return ("dict", [self.key(key) for key in value if key not in SKIPPED]) if isinstance(value, dict) else _KEPT


class _Reader:
    def __init__(self, state: WorldState) -> None:
        env = state.objects["env"]
        assert isinstance(env, Environment)
        self.state, self.device = state, env.device
        self._copies: dict[int, Any] = {}
        self._objects = dict(state.objects)

    def object_at(self, path: str) -> object:
        if path not in self._objects:
            raise ValueError(f"the saved env state has {path!r}, which this env lacks: build the env as it was saved")
        return self._objects[path]

    def key(self, key: Saved) -> object:
        return key[1] if key[0] == "value" or key[1] is None else self.object_at(key[1])

    def value(self, saved: Saved, path: str) -> object:
        kind, content = saved
        if kind == "tensor":
            # A checkpoint is read onto the CPU, wherever the env lives.
            return self._copies.setdefault(id(content), content.to(self.device, copy=True))
        if kind == "array":
            return self._copies.setdefault(id(content), content.numpy().copy())
        if kind == "number":
            return content.numpy()[()]
        if kind == "reference":
            return self.object_at(content)
        if kind in ("set", "frozenset"):
            return set(content) if kind == "set" else frozenset(content)
        if kind == "value":
            return content
        if kind in _CONTAINERS:
            return self._container(kind, content, path)
        there = self.state.python[path][1] if path in self.state.python else None
        if kind == "tuple":
            items = [self.value(item, f"{path}.{number}") for number, item in enumerate(content)]
            return like(there if isinstance(there, tuple) else (), items)
        return type(there)[content] if kind == "member" and isinstance(there, enum.Enum) else there

    def _container(self, kind: str, content: Any, path: str) -> list[Any] | deque[Any] | dict[Any, Any]:
        """The container at ``path`` with the keys of the saved one; what is new in it is None."""
        length, maxlen = content if kind == "deque" else (content, None)
        found: Any = self._objects.get(path)
        if not isinstance(found, _CONTAINERS[kind]):
            found = deque(maxlen=maxlen) if kind == "deque" else _CONTAINERS[kind]()
            self._objects[path] = found
        if isinstance(found, dict):
            if ("reference", None) not in content:
                old = dict(found)
                found.clear()
                found.update({key: old.get(key) for key in map(self.key, content)})
            return found
        kept = list(found)[:length]
        found.clear()
        found.extend([*kept, *[None] * (length - len(kept))])
        return found
