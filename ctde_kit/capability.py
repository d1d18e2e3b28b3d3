"""Protocols that can be asked for with ``isinstance``, with the same answer on every Python version."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Protocol


class _AsksTheInstance(type(Protocol)):
    """Makes ``isinstance`` ask the class and then the instance for each name, on every Python version.

    Protocols alone do not: Python 3.11 evaluates properties, whose errors would come out of ``isinstance``. From 3.12
    on, ``inspect.getattr_static`` overlooks the submodules and buffers of an ``nn.Module``, and whatever a wrapper
    such as ``TensorDictModule`` passes on.
    """

    def __instancecheck__(cls, instance: object) -> bool:
        if Protocol not in cls.__bases__:
            return super().__instancecheck__(instance)
        return all(hasattr(type(instance), name) or hasattr(instance, name) for name in _asked_names(cls))


@cache
def _asked_names(capability: type) -> set[str]:
    """The public names that a capability has, its own and those of the protocols that it extends."""
    declared = [(*vars(cls), *inspect.get_annotations(cls)) for cls in capability.__mro__ if cls is not object]
    return {name for names in declared for name in names if not name.startswith("_")}


class Capability(Protocol, metaclass=_AsksTheInstance):
    """The base of protocols that are asked for with ``isinstance``: any object with all their public names is one.

    >>> from types import SimpleNamespace
    >>> from ctde_kit.protocols import SaysReadsMask
    >>> isinstance(SimpleNamespace(reads_mask=False), SaysReadsMask), isinstance(SimpleNamespace(), SaysReadsMask)
    (True, False)
    """
