"""The whole state of a VMAS world: the tensors and the Python values that its objects hold."""

from __future__ import annotations

import enum
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from vmas.simulator.environment import Environment

from ctde_kit.protocols import StateDict

# Objects without state of their own, and attributes that only matter for drawing.
_OPAQUE = (type, types.FunctionType, types.MethodType, types.ModuleType, types.BuiltinFunctionType, torch.device)
_SKIPPED = frozenset({"viewer", "text_lines", "visible_display", "headless", "observation_space", "action_space"})
Saved = tuple[str, object]
"""The kind of a saved key or value, and what stands for it: itself, a copy, a path, or an empty container."""
_VALUE_TYPES = (int, float, str, bool, type(None), complex, bytes)


def has_rows(value: Tensor, n_envs: int) -> bool:
    """Whether a tensor has one row per env."""
    return value.ndim > 0 and value.shape[0] == n_envs


@dataclass(frozen=True)
class Slot:
    """A place that holds a value: an attribute of an object, or an entry of a list or dict."""

    path: str
    owner_path: str
    owner: object
    key: object

    def set(self, value: object) -> None:
        entries: Any = self.owner if isinstance(self.owner, (list, dict)) else vars(self.owner)
        entries[self.key] = value


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
    python: dict[str, tuple[Slot, object]]
    names: dict[int, str]
    objects: dict[str, object]

    @classmethod
    def read(cls, env: Environment) -> WorldState:
        tensors: dict[str, Slot] = {}
        values: dict[str, Tensor] = {}
        python: dict[str, tuple[Slot, object]] = {}
        objects: dict[str, object] = {"env": env}
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

    def _token(self, path: str) -> object:
        return self._identity(self.python[path][1]) if path in self.python else "absent"

    def _identity(self, value: object) -> object:
        if isinstance(value, tuple):
            return tuple(self._identity(item) for item in value)
        return (type(value), value) if isinstance(value, _VALUE_TYPES) else self.names.get(id(value), id(value))

    def restore_python(self) -> None:
        for slot, value in self.python.values():
            slot.set(value)

    def snapshot(self) -> StateDict:
        """Copies of all tensors, Python values and containers, and the paths that references point to."""
        copies: dict[int, Tensor] = {}
        entries: list[tuple[str, str, Saved, Saved]] = []
        slots: list[tuple[Slot, object]] = [(self.tensors[path], value) for path, value in self.values.items()]
        for slot, value in [*self.python.values(), *slots]:
            if isinstance(value, Tensor):
                saved: Saved = ("tensor", copies.setdefault(id(value), value.clone()))
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

    def restore(self, snapshot: StateDict) -> None:
        """Write a snapshot of an env that was built alike back into the slots.

        Raises:
            ValueError: where the env has no object of a name that the snapshot holds.
        """
        copies: dict[int, Tensor] = {}
        env = self.objects["env"]
        assert isinstance(env, Environment)
        for path, owner_path, (key_kind, key), (kind, value) in snapshot["entries"]:
            if kind == "container" and path in self.objects:
                continue
            if kind == "tensor":
                # A checkpoint is read onto the CPU, wherever the env lives.
                value = copies.setdefault(id(value), value.to(env.device, copy=True))
            elif kind == "reference":
                value = self._object(value)
            elif kind == "container":
                value = self.objects[path] = type(value)()
            key = self._object(key) if key_kind == "reference" else key
            Slot(path, owner_path, self._object(owner_path), key).set(value)

    def _object(self, path: str) -> object:
        if path not in self.objects:
            raise ValueError(f"the saved env state has {path!r}, which this env lacks: build the env as it was saved")
        return self.objects[path]


def _walk(objects: dict[str, object], names: dict[int, str]) -> Iterator[tuple[Slot, object]]:
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


def _entries(owner: object) -> list[tuple[object, object]]:
    if isinstance(owner, dict):
        items: Iterable[tuple[object, object]] = owner.items()
    elif isinstance(owner, list):
        items = enumerate(owner)
    else:
        items = vars(owner).items()
    return [(key, value) for key, value in items if key not in _SKIPPED and not isinstance(value, _OPAQUE)]


def _has_entries(value: object) -> bool:
    if isinstance(value, (list, dict)):
        return True
    return hasattr(value, "__dict__") and not isinstance(value, (*_OPAQUE, Tensor, enum.Enum))


def _is_value(value: object) -> bool:
    return all(map(_is_value, value)) if isinstance(value, (tuple, frozenset)) else isinstance(value, _VALUE_TYPES)


def _key_name(key: object, names: dict[int, str]) -> str:
    if isinstance(key, frozenset):
        return "+".join(sorted(map(str, key)))
    return str(key) if _is_value(key) else names.get(id(key), type(key).__name__)
