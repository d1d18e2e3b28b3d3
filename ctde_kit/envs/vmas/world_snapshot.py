"""The state of a VMAS world as plain data, to go on from it in an env that is built alike."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from vmas.simulator.environment import Environment

from ctde_kit.envs.vmas.tensor_copies import copies_of
from ctde_kit.envs.vmas.world_memory import WorldMemory
from ctde_kit.envs.vmas.world_slots import (
    SKIPPED,
    Slot,
    has_entries,
    is_number_array,
    is_readable_key,
    is_value,
    key_name,
    like,
    refill,
)
from ctde_kit.envs.vmas.world_state import WORLD, WorldState
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
        # A tuple has its items itself.
        if not isinstance(slot.owner, Slot) and is_readable_key(slot.key, state.names)
    ]
    return {"entries": entries}


def restore(state: WorldState, saved: StateDict) -> None:
    """Write a snapshot of an env that was built alike into the slots of another.

    Args:
        state: of the env to write into; after an error it is as before.
        saved: what ``snapshot`` gave.

    Raises:
        ValueError: where the env has no object of a name that the snapshot holds, or another number of entities, or no
            value yet of a class of one's own that the snapshot has a value of.
    """
    memory = WorldMemory(state)
    try:
        reader = _Reader(state, saved["entries"])
        for path, owner_path, key, value in saved["entries"]:
            if value != _KEPT:
                owner = reader.object_at(owner_path)
                _set(Slot(path, owner_path, owner, reader.key(key, owner)), reader.value(value, path), state)
    except Exception:
        memory.put_back()
        raise


@torch.no_grad()
def _set(slot: Slot, value: object, state: WorldState) -> None:
    there = state.values.get(slot.path)
    # Of a network, which an optimizer may know.
    if isinstance(there, nn.Parameter) and isinstance(value, Tensor) and there.shape == value.shape:
        there.copy_(value)
    else:
        slot.set(value)


class _Writer:
    def __init__(self, state: WorldState) -> None:
        self.state = state
        held = [value for _, value in state.python.values() if isinstance(value, np.ndarray) and is_number_array(value)]
        self._arrays = {id(array): _shown(array) for array in held}
        self._copies = copies_of([*state.values.values(), *self._arrays.values()])
        self._items: dict[int, list[object]] = {}

    def key(self, key: object) -> Saved:
        if isinstance(key, np.generic):
            return "value", key.item()
        name = key_name(key)
        if name is not None:
            return "named", name
        if isinstance(key, frozenset):
            return "frozenset", list(key)
        return ("value", key) if is_value(key) else ("reference", self.state.names.get(id(key)))

    def saved(self, value: Any, path: str) -> Saved:
        if isinstance(value, Tensor):
            return "tensor", self._copies[id(value)]
        if is_value(value):
            return "value", value
        if is_number_array(value):
            if isinstance(value, np.ndarray):
                return "array", self._copies[id(self._arrays[id(value)])]
            return "number", torch.from_numpy(np.array(value))
        if isinstance(value, enum.Enum):
            return "member", value.value
        if isinstance(value, tuple):
            items = [self.saved(item, f"{path}.{number}") for number, item in enumerate(value)]
            return "tuple", (type(value).__name__, items)
        if isinstance(value, (set, frozenset)):
            # One list per set, which a loaded checkpoint has once, too.
            items = self._items.setdefault(id(value), list(value))
            return (type(value).__name__, items) if all(map(is_value, value)) else _KEPT
        if self.state.names.get(id(value), path) != path:
            return "reference", self.state.names[id(value)]
        return self._container(value) if has_entries(value) and path in self.state.objects else _KEPT

    def _container(self, value: object) -> Saved:
        if isinstance(value, list):
            return "list", len(value)
        if isinstance(value, deque):
            return "deque", (len(value), value.maxlen)
        if isinstance(value, dict) and all(is_readable_key(key, self.state.names) for key in value):
            return "dict", [self.key(key) for key in value if key not in SKIPPED]
        # An object is never made anew: what it holds has entries of its own.
        return _KEPT


def _shown(array: np.ndarray) -> Tensor:
    """A tensor of an array's memory; of a copy where torch cannot show it."""
    can_show = array.flags.writeable and all(stride >= 0 for stride in array.strides)
    return torch.from_numpy(array if can_show else array.copy())


class _Reader:
    def __init__(self, state: WorldState, entries: list[tuple[str, str, Saved, Saved]]) -> None:
        env = state.objects["env"]
        assert isinstance(env, Environment)
        self.state, self.device = state, env.device
        saved = [held for *_, value in entries for held in _tensors(value)]
        self._copies = copies_of(tensor for _, tensor in saved)
        tensors = [self._copies[id(held)] for kind, held in saved if kind == "tensor"]
        # A checkpoint is read onto the CPU, wherever the env lives; there arrays may share memory with tensors.
        on_cpu = self.device.type == "cpu"
        self._moved = {id(one): one for one in tensors} if on_cpu else copies_of(tensors, self.device)
        self._arrays: dict[int, np.ndarray] = {}
        self._sets: dict[int, set[object]] = {}
        self._objects = dict(state.objects)
        self._check_entities(entries)

    def _check_entities(self, entries: list[tuple[str, str, Saved, Saved]]) -> None:
        for path, _, _, (kind, content) in entries:
            held = self._objects.get(path) if path in (f"{WORLD}._agents", f"{WORLD}._landmarks") else None
            if isinstance(held, list) and kind == "list" and len(held) != content:
                raise ValueError(
                    f"the saved env state has {content} objects in {path!r}, and this env {len(held)}: build the env "
                    "as it was saved"
                )

    def object_at(self, path: str) -> object:
        if path not in self._objects:
            raise ValueError(
                f"the saved env state has {path!r}, which this env lacks: build the env as it was saved, and let its "
                "scenario keep objects that come and go in a list or dictionary that does not"
            )
        return self._objects[path]

    def key(self, key: Saved, owner: object) -> object:
        kind, content = key
        if kind == "reference":
            return self.object_at(content)
        if kind == "named":
            keys: Any = owner if isinstance(owner, dict) else {}
            found = [held for held in keys if key_name(held) == content]
            return found[0] if len(found) == 1 else _missing(content)
        return frozenset(content) if kind == "frozenset" else content

    def value(self, saved: Saved, path: str) -> object:
        kind, content = saved
        if kind == "tensor":
            return self._moved[id(self._copies[id(content)])]
        if kind == "array":
            return self._arrays.setdefault(id(content), self._copies[id(content)].numpy())
        if kind == "number":
            return content.numpy()[()]
        if kind == "reference":
            return self.object_at(content)
        if kind == "set":
            return self._sets.setdefault(id(content), set(content))
        if kind == "frozenset":
            return frozenset(content)
        if kind == "value":
            return content
        if kind in _CONTAINERS:
            return self._container(kind, content, path)
        return self._of_own_class(kind, content, path)

    def _of_own_class(self, kind: str, content: Any, path: str) -> object:
        """A tuple or a member of an enum, of the class of what is there."""
        there = self.state.python[path][1] if path in self.state.python else None
        if kind == "member":
            return type(there)(content) if isinstance(there, enum.Enum) else _missing(path)
        name, items = content
        read = [self.value(item, f"{path}.{number}") for number, item in enumerate(items)]
        if name == "tuple":
            return tuple(read)
        return like(there, read) if isinstance(there, tuple) and type(there).__name__ == name else _missing(path)

    def _container(self, kind: str, content: Any, path: str) -> list[Any] | deque[Any] | dict[Any, Any]:
        """The container at ``path`` with the keys of the saved one; what is new in it is None."""
        length, maxlen = content if kind == "deque" else (content, None)
        found: Any = self._objects.get(path)
        if not isinstance(found, _CONTAINERS[kind]):
            found = deque(maxlen=maxlen) if kind == "deque" else _CONTAINERS[kind]()
            self._objects[path] = found
        if isinstance(found, dict):
            old = dict(found)
            keys = [self.key(key, old) for key in content]
            refill(found, {key: old.get(key) for key in keys})
            return found
        kept = list(found)[:length]
        found.clear()
        found.extend([*kept, *[None] * (length - len(kept))])
        return found


def _missing(path: str) -> object:
    raise ValueError(
        f"the saved env state has {path!r}, a value of a class that this env has none of there yet: let the scenario "
        "make one in reset_world_at"
    )


def _tensors(saved: Saved) -> Iterator[tuple[str, Tensor]]:
    kind, content = saved
    if kind in ("tensor", "array"):
        yield kind, content
    elif kind == "tuple":
        for item in content[1]:
            yield from _tensors(item)
