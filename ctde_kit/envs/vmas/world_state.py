"""The whole state of a VMAS world at one moment: the tensors and the Python values that its objects hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from vmas.simulator.environment import Environment

from ctde_kit.envs.vmas.world_slots import Slot, is_readable, is_value, walk


def has_rows(value: Tensor, n_envs: int) -> bool:
    """Whether a tensor has one row per env, as all whose first size is ``n_envs`` are taken to have."""
    return value.ndim > 0 and value.shape[0] == n_envs


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
        state = cls({}, {}, {}, {}, {id(env): "env"}, {"env": env})
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
        return sorted(slot.path for slot, value in self.python.values() if not is_readable(value))

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
        if is_value(value) or isinstance(value, np.generic):
            return type(value), value
        # An item of a tuple that is one of these has a slot of its own.
        is_slot = isinstance(value, (Tensor, np.ndarray, set))
        return type(value) if is_slot else self.names.get(id(value), id(value))


def _frozen(value: np.ndarray | set[Any]) -> object:
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    return frozenset((type(item), item) if is_value(item) else id(item) for item in value)
