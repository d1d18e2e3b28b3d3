"""The places of a VMAS world that hold values: attributes of its objects, and entries of lists, dicts and tuples."""

from __future__ import annotations

import copyreg
import enum
import functools
import logging
import random
import threading
import types
import weakref
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Objects without state of their own, and attributes that only matter for drawing.
OPAQUE = (
    type,
    types.FunctionType,
    types.MethodType,
    types.ModuleType,
    types.BuiltinFunctionType,
    torch.device,
    torch.dtype,
    np.dtype,
    range,
    slice,
    weakref.ref,
    logging.Logger,
    type(threading.Lock()),
    type(threading.RLock()),
)
# Keys that are known by their names among those of the same dictionary.
_NAMED = (enum.Enum, type, types.FunctionType, types.ModuleType, types.BuiltinFunctionType, torch.device, torch.dtype)
CONTAINERS = (list, dict, deque)
SKIPPED = frozenset({"viewer", "text_lines", "visible_display", "headless", "observation_space", "action_space"})
_VALUE_TYPES = frozenset([int, float, str, bool, type(None), complex, bytes])
_LEAVES = (*OPAQUE, *_VALUE_TYPES, Tensor, np.ndarray, np.generic, enum.Enum, set, frozenset, tuple, functools.partial)
# Their state is not among their attributes.
_GENERATORS = (random.Random, torch.Generator)
# Numbers of numpy that torch has, too.
_NUMBERS = frozenset(["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"])


# Not frozen: a partial reset creates thousands of them, and frozen ones take longer to create.
@dataclass(eq=False, slots=True)
class Slot:
    """A place that holds a value.

    Args:
        path: from the env to it.
        owner_path: of the object that it belongs to.
        owner: that object, or the slot of a tuple.
        key: an attribute's name, or the key of an entry.
    """

    path: str
    owner_path: str
    owner: object
    key: object

    def get(self) -> object:
        held: Any = self.owner.get() if isinstance(self.owner, Slot) else entries_of(self.owner)
        return held[self.key]

    def set(self, value: object) -> None:
        owner, key = self.owner, self.key
        if isinstance(owner, Slot):
            items: Any = owner.get()
            owner.set(like(items, [value if i == key else item for i, item in enumerate(items)]))
        elif isinstance(owner, CONTAINERS):
            entries: Any = owner
            entries[key] = value
        else:
            set_attribute(owner, str(self.key), value)


def like(given: tuple[object, ...], items: list[object]) -> tuple[object, ...]:
    """A tuple of ``items``, of the class of ``given``."""
    make: Any = getattr(given, "_make", type(given))
    return make(items)


def attributes(owner: object) -> dict[str, object]:
    """All attributes of an object, those in its ``__slots__`` included."""
    held: dict[str, object] = getattr(owner, "__dict__", {})
    named = _slot_names(type(owner))
    return {**held, **{name: getattr(owner, name) for name in named if hasattr(owner, name)}} if named else held


def set_attribute(owner: object, name: str, value: object) -> None:
    """Set what ``attributes`` gave, without the owner's own setters."""
    if name in _slot_names(type(owner)):
        object.__setattr__(owner, name, value)
    else:
        vars(owner)[name] = value


def remove_attribute(owner: object, name: str) -> None:
    """Remove what ``attributes`` gave."""
    if name in _slot_names(type(owner)):
        object.__delattr__(owner, name)
    else:
        del vars(owner)[name]


@functools.lru_cache(1024)
def _slot_names(kind: type) -> tuple[str, ...]:
    """The names in ``__slots__``, as pickle finds them."""
    find: Any = vars(copyreg)["_slotnames"]
    return tuple(find(kind))


def walk(objects: dict[str, object], names: dict[int, str]) -> Iterator[tuple[Slot, object]]:
    """Visit each object once, and name it by a path to it that seldom changes.

    What a list, dictionary or tuple holds is named by that before an attribute that holds it, too, and all that is
    found otherwise before what ``objects`` hold beyond the first: a scenario that has goals in a list may point from
    itself and from its agents to another one of them at any time.

    Args:
        objects: by path, those to begin with; it takes up all that are found.
        names: the same by identity.
    """
    first, *others = objects.items()
    held, attached, last = deque[tuple[str, object]](), deque([first]), deque(others)
    visited: set[int] = set()
    while queue := held or attached or last:
        path, owner = queue.popleft()
        if id(owner) in visited:
            continue
        visited.add(id(owner))
        names[id(owner)] = path = names.get(id(owner), path)
        objects[path] = owner
        used: set[str] = set()
        for position, (key, value) in enumerate(_entries(owner)):
            name = _name_in_paths(key, names)
            name = f"{name}#{position}" if name in used else name
            used.add(name)
            whole = Slot(f"{path}.{name}", path, owner, key)
            for slot, item in [(whole, value)] if not isinstance(value, tuple) else _with_items(whole, value):
                yield slot, item
                if id(item) not in names and has_entries(item):
                    is_held = isinstance(item, CONTAINERS) or isinstance(slot.owner, (*CONTAINERS, Slot))
                    (held if is_held else attached).append((slot.path, item))


def _with_items(slot: Slot, value: object) -> Iterator[tuple[Slot, object]]:
    """A slot and, where it holds a tuple of more than plain values, those of the tuple's items."""
    yield slot, value
    if isinstance(value, tuple) and not is_value(value):
        for number, item in enumerate(value):
            if not isinstance(item, OPAQUE):
                yield from _with_items(Slot(f"{slot.path}.{number}", slot.owner_path, slot, number), item)


def entries_of(owner: object) -> Any:
    """A container itself, or the attributes of an object."""
    return owner if isinstance(owner, CONTAINERS) else attributes(owner)


def refill(owner: dict[object, object], content: dict[object, object]) -> None:
    """Give a dictionary other entries, without its own way of updating: a ``Counter``'s adds."""
    # An OrderedDict keeps the order beside the entries.
    kind: Any = OrderedDict if isinstance(owner, OrderedDict) else dict
    kind.clear(owner)
    for key, value in content.items():
        kind.__setitem__(owner, key, value)


def _entries(owner: object) -> list[tuple[object, object]]:
    held = entries_of(owner)
    items = enumerate(held) if isinstance(held, (list, deque)) else held.items()
    return [(key, value) for key, value in items if key not in SKIPPED and not _is_stateless(value)]


def _is_stateless(value: object) -> bool:
    if not _is_opaque(type(value)):
        return False
    # A function that closes over variables is told apart from another of the same code by its identity.
    return not (isinstance(value, types.FunctionType) and value.__closure__ is not None)


@functools.lru_cache(1024)
def _is_opaque(kind: type) -> bool:
    return issubclass(kind, OPAQUE)


@functools.lru_cache(1024)
def _is_leaf(kind: type) -> bool:
    return issubclass(kind, _LEAVES)


def has_entries(value: object) -> bool:
    """Whether there is something to find inside."""
    if isinstance(value, CONTAINERS):
        return True
    return not _is_leaf(type(value)) and (hasattr(value, "__dict__") or bool(_slot_names(type(value))))


def is_value(value: object) -> bool:
    """Whether it is a plain Python value, or a tuple of such; values of classes of one's own are not."""
    return type(value) in _VALUE_TYPES or (type(value) is tuple and all(map(is_value, value)))


def is_number_array(value: object) -> bool:
    """Whether it is one or many numbers of numpy that a tensor can hold."""
    return isinstance(value, (np.ndarray, np.generic)) and value.dtype.name in _NUMBERS and value.dtype.isnative


def is_readable(value: object) -> bool:
    """Whether its state can be found, or it has none."""
    if is_value(value) or isinstance(value, Tensor):
        return True
    if isinstance(value, enum.Enum):
        return is_value(value.value)
    if isinstance(value, (set, frozenset)):
        return all(is_value(item) or isinstance(item, OPAQUE) for item in value)
    if isinstance(value, tuple):
        return all(map(is_readable, value))
    if isinstance(value, (np.ndarray, np.generic)):
        return is_number_array(value)
    if _is_opaque(type(value)):
        return True
    return has_entries(value) and not isinstance(value, _GENERATORS)


def is_readable_key(key: object, names: dict[int, str]) -> bool:
    """Whether a dictionary's key is a value, a member of an enum, a class, or an object that has a name."""
    if is_value(key) or key_name(key) is not None:
        return True
    return (isinstance(key, (frozenset, np.generic)) and is_readable(key)) or id(key) in names


def key_name(key: object) -> str | None:
    """What a key is called wherever the program runs; ``None`` for keys without such a name."""
    if not isinstance(key, _NAMED):
        return None
    # Without the module, whose name has its content in it where it is a file of one's own.
    if isinstance(key, (types.FunctionType, types.BuiltinFunctionType)):
        # Others may be called alike.
        return None if "<" in key.__qualname__ else key.__qualname__
    return key.__qualname__ if isinstance(key, type) else str(key)


def _name_in_paths(key: object, names: dict[int, str]) -> str:
    if type(key) is str:
        return key
    if isinstance(key, frozenset):
        return "+".join(sorted(map(str, key)))
    name = key_name(key)
    if name is not None:
        return name
    return str(key) if is_readable_key(key, {}) else names.get(id(key), type(key).__name__)
