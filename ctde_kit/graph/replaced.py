"""Functions and flags of other packages, replaced for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def replaced(owner: Any, name: str, value: object) -> Iterator[None]:
    """While it lasts, the attribute ``name`` of a module or class is ``value``; one that it lacks is not added.

    >>> import math
    >>> from ctde_kit.graph.replaced import replaced
    >>> with replaced(math, "floor", lambda x: 7):
    ...     math.floor(2.5)
    7
    >>> math.floor(2.5)
    2
    """
    if not hasattr(owner, name):  # another version of the package
        yield
        return
    is_own, before = name in vars(owner), vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if is_own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)
