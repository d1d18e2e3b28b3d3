"""Everything that a VMAS world remembers: the tensors and the Python values that its objects hold."""

from __future__ import annotations

import enum
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from vmas.simulator.environment import Environment

# Objects that describe rather than remember, and what belongs to drawing.
_OPAQUE = (type, types.FunctionType, types.MethodType, types.ModuleType, types.BuiltinFunctionType, torch.device)
_SKIPPED = frozenset({"viewer", "text_lines", "visible_display", "headless", "observation_space", "action_space"})
_VALUE_TYPES = (int, float, str, bool, type(None), complex, bytes)


def has_rows(value: Tensor, n_envs: int) -> bool:
    """Whether a tensor has one row per env."""
    return value.ndim > 0 and value.shape[0] == n_envs


@dataclass(frozen=True)
class Slot:
    """A place that holds a value: an attribute of an object, or an entry of a list or dict."""

    path: str
    owner_path: str
    owner: Any
    key: Any

    def get(self) -> Any:
        return self.owner[self.key] if isinstance(self.owner, (list, dict)) else self.owner.__dict__[self.key]

    def set(self, value: Any) -> None:
        if isinstance(self.owner, (list, dict)):
            self.owner[self.key] = value
        else:
            self.owner.__dict__[self.key] = value


@dataclass(frozen=True)
class WorldState:
    """The slots of one env at one moment, with what they held.

    Args:
        tensors: the slots that held a tensor, by path.
        values: the tensors they held, by path.
        python: slots that held anything else, by path: Python values, and references to other objects (a goal, say).
        names: the path of each object, by its identity.
        objects: the objects themselves, by path.
    """

    tensors: dict[str, Slot]
    values: dict[str, Tensor]
    python: dict[str, tuple[Slot, Any]]
    names: dict[int, str]
    objects: dict[str, Any]

    @classmethod
    def read(cls, env: Environment) -> WorldState:
        tensors: dict[str, Slot] = {}
        values: dict[str, Tensor] = {}
        python: dict[str, tuple[Slot, Any]] = {}
        objects: dict[str, Any] = {"env": env}
        names = {id(env): "env"}
        for slot, value in _walk(objects, names):
            if isinstance(value, Tensor):
                tensors[slot.path], values[slot.path] = slot, value
            else:
                python[slot.path] = (slot, value)
        return cls(tensors, values, python, names, objects)

    def changed_python(self, later: WorldState) -> list[str]:
        """Paths whose Python value is another one in ``later``, or that only one of the two has."""
        paths = self.python.keys() | later.python.keys()
        return sorted(path for path in paths if self._token(path) != later._token(path))

    def _token(self, path: str) -> Any:
        return self._identity(self.python[path][1]) if path in self.python else "absent"

    def _identity(self, value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(self._identity(item) for item in value)
        return (type(value), value) if isinstance(value, _VALUE_TYPES) else self.names.get(id(value), id(value))

    def restore_python(self) -> None:
        for slot, value in self.python.values():
            slot.set(value)

    def snapshot(self) -> dict[str, Any]:
        """Copies of all tensors, Python values and containers, and the paths that references point to."""
        copies: dict[int, Tensor] = {}
        entries = []
        slots = [(self.tensors[path], value) for path, value in self.values.items()]
        for slot, value in [*self.python.values(), *slots]:
            if isinstance(value, Tensor):
                saved: tuple[str, Any] = ("tensor", copies.setdefault(id(value), value.clone()))
            elif _is_value(value):
                saved = ("value", value)
            elif self.names.get(id(value), slot.path) != slot.path:
                saved = ("reference", self.names[id(value)])
            elif type(value) in (list, dict):
                saved = ("container", type(value)())
            else:
                continue
            key = ("value", slot.key) if _is_value(slot.key) else ("reference", self.names.get(id(slot.key)))
            entries.append((slot.path, slot.owner_path, key, saved))
        return {"entries": entries}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Write a snapshot of an env that was built alike back into the slots.

        Raises:
            ValueError: where the env has no object of a name that the snapshot holds.
        """
        copies: dict[int, Tensor] = {}
        for path, owner_path, (key_kind, key), (kind, value) in snapshot["entries"]:
            if kind == "container" and path in self.objects:
                continue
            if kind == "tensor":
                # A checkpoint is read onto the CPU, wherever the env lives.
                value = copies.setdefault(id(value), value.to(self.objects["env"].device, copy=True))
            elif kind == "reference":
                value = self._object(value)
            elif kind == "container":
                value = self.objects[path] = type(value)()
            key = self._object(key) if key_kind == "reference" else key
            Slot(path, owner_path, self._object(owner_path), key).set(value)

    def _object(self, path: str) -> Any:
        if path not in self.objects:
            raise ValueError(f"the saved env state has {path!r}, which this env lacks: build the env as it was saved")
        return self.objects[path]


def _walk(objects: dict[str, Any], names: dict[int, str]) -> Iterator[tuple[Slot, Any]]:
    """Visit each object once, breadth first, so that its name is the shortest path to it."""
    queue = list(objects.items())
    for path, owner in queue:
        for key, value in _entries(owner):
            here = f"{path}.{_key_name(key, names)}"
            yield Slot(here, path, owner, key), value
            inside = [(f"{here}.{i}", item) for i, item in enumerate(value)] if isinstance(value, tuple) else []
            for name, item in [(here, value), *inside]:
                if id(item) not in names and _has_entries(item):
                    names[id(item)] = name
                    objects[name] = item
                    queue.append((name, item))


def _entries(owner: Any) -> list[tuple[Any, Any]]:
    if isinstance(owner, dict):
        items: Any = owner.items()
    elif isinstance(owner, list):
        items = enumerate(owner)
    else:
        items = owner.__dict__.items()
    return [(key, value) for key, value in items if key not in _SKIPPED and not isinstance(value, _OPAQUE)]


def _has_entries(value: Any) -> bool:
    if isinstance(value, (list, dict)):
        return True
    return hasattr(value, "__dict__") and not isinstance(value, (*_OPAQUE, Tensor, enum.Enum))


def _is_value(value: Any) -> bool:
    return all(map(_is_value, value)) if isinstance(value, (tuple, frozenset)) else isinstance(value, _VALUE_TYPES)


def _key_name(key: Any, names: dict[int, str]) -> str:
    if isinstance(key, frozenset):
        return "+".join(sorted(map(str, key)))
    return str(key) if _is_value(key) else names.get(id(key), type(key).__name__)
