"""The whole state of a VMAS world at one moment: the tensors and the Python values that its objects hold."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from vmas.simulator.environment import Environment

from ctde_kit.envs.vmas.world_slots import Slot, is_readable, is_readable_key, is_value, walk

WORLD = "env.world"


def has_rows(value: Tensor, n_envs: int) -> bool:
    """Whether a tensor has one row per env, as all whose first size is ``n_envs`` are taken to have."""
    return value.ndim > 0 and value.shape[0] == n_envs


def same_numbers(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal, with what is not a number in the same places."""
    if torch.equal(one, other) or one.shape != other.shape:
        return one.shape == other.shape
    return bool(((one == other) | (one.isnan() & other.isnan())).all())


@dataclass(frozen=True)
class WorldState:
    """The slots of one env at one moment, with what they held.

    Args:
        tensors: the slots that held a tensor, by path.
        values: the tensors they held, by path.
        python: slots that held anything else, by path: Python values, and references to other objects (a goal, say).
        frozen: what arrays of numpy and sets held, by path.
        names: the path of each object, by its identity.
        objects: the objects themselves, by path.
    """

    tensors: dict[str, Slot]
    values: dict[str, Tensor]
    python: dict[str, tuple[Slot, object]]
    frozen: dict[str, object]
    names: dict[int, str]
    objects: dict[str, object]

    @classmethod
    def read(cls, env: Environment) -> WorldState:
        objects = _named(env)
        state = cls({}, {}, {}, {}, {id(owner): path for path, owner in objects.items()}, objects)
        for slot, value in walk(state.objects, state.names):
            if isinstance(value, Tensor):
                state.tensors[slot.path], state.values[slot.path] = slot, value
            else:
                state.python[slot.path] = (slot, value)
            if isinstance(value, (np.ndarray, set)):
                state.frozen[slot.path] = _frozen(value)
        return state

    def unreadable(self) -> list[str]:
        """Paths of objects whose state cannot be found, such as random generators and iterators."""
        slots = [*self.python.values(), *((self.tensors[path], value) for path, value in self.values.items())]
        return sorted(
            slot.path
            for slot, value in slots
            if not (is_readable(value) and (isinstance(slot.owner, Slot) or is_readable_key(slot.key, self.names)))
        )

    def changed_python(self, later: WorldState) -> list[str]:
        """Paths whose Python value is another one in ``later``, or that only one of the two has."""
        paths = self.python.keys() | later.python.keys()
        return sorted(path for path in paths if self._token(path) != later._token(path))

    def _token(self, path: str) -> object:
        if path in self.frozen:
            return self.frozen[path]
        return self._identity(self.python[path][1]) if path in self.python else "absent"

    def _identity(self, value: object) -> object:
        if isinstance(value, tuple):
            return tuple(self._identity(item) for item in value)
        if is_value(value) or isinstance(value, (np.generic, enum.Enum, frozenset)):
            # Not a number is unlike itself.
            return type(value), value if value == value else repr(value)
        # An item of a tuple that is one of these has a slot of its own.
        is_slot = isinstance(value, (Tensor, np.ndarray, set))
        return type(value) if is_slot else self.names.get(id(value), id(value))


def _named(env: Environment) -> dict[str, object]:
    """The objects whose names do not depend on what else holds them: a goal that changes, for example."""
    agents, landmarks = (f"{WORLD}._agents", env.world._agents), (f"{WORLD}._landmarks", env.world._landmarks)
    entities = {f"{path}.{number}": one for path, all in (agents, landmarks) for number, one in enumerate(all)}
    return {"env": env, **entities}


def _frozen(value: np.ndarray | set[Any]) -> object:
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    return frozenset((type(item), item) if is_value(item) else id(item) for item in value)
