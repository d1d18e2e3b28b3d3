"""What a VMAS world holds at one moment, to put it back within the same program."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctde_kit.envs.vmas.tensor_copies import each_number_once
from ctde_kit.envs.vmas.world_slots import attributes, entries_of, refill, remove_attribute, set_attribute
from ctde_kit.envs.vmas.world_state import WorldState


class WorldMemory:
    """Remembers a state, and puts it back: the same objects and tensors in the same places, with the same content.

    Args:
        state: read at this moment.
    """

    def __init__(self, state: WorldState) -> None:
        self._state = state
        self._tensors = {id(value): value.clone() for value in state.values.values()}
        held = [value for _, value in state.python.values()]
        self._arrays = [(value, value.copy()) for value in held if isinstance(value, np.ndarray)]
        self._sets = [(value, set(value)) for value in held if isinstance(value, set)]
        self._contents = [(owner, _content(owner)) for owner in state.objects.values()]

    def value(self, path: str) -> Tensor:
        """What the tensor at ``path`` held."""
        return self._tensors[id(self._state.values[path])]

    @torch.no_grad()
    def put_back(self, *, keep_new: bool = False) -> None:
        """Put it back; with ``keep_new`` attributes and keys that came since stay."""
        for owner, content in self._contents:
            _refill(owner, content, keep_new)
        for array, content in self._arrays:
            if array.flags.writeable:
                array[...] = content
        for items, content in self._sets:
            items.clear()
            items.update(content)
        for tensor in self._state.values.values():
            content = self._tensors[id(tensor)]
            if not torch.equal(tensor, content):
                each_number_once(tensor, like=tensor).copy_(each_number_once(content, like=tensor))


def _content(owner: object) -> Any:
    content = entries_of(owner)
    return list(content) if isinstance(content, (list, deque)) else dict(content)


def _refill(owner: object, content: Any, keep_new: bool) -> None:
    if isinstance(owner, (list, deque)):
        owner.clear()
        owner.extend(content)
    elif isinstance(owner, dict):
        refill(owner, {**content, **{key: value for key, value in owner.items() if keep_new and key not in content}})
    else:
        for name in [] if keep_new else attributes(owner).keys() - content.keys():
            remove_attribute(owner, name)
        for name, value in content.items():
            set_attribute(owner, name, value)
