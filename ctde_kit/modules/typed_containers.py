"""Typed access to the modules in torch's containers, which do not say what kind of modules they hold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from torch import nn

Part = TypeVar("Part", bound=nn.Module)


def all_of(modules: Iterable[nn.Module], kind: type[Part]) -> list[Part]:
    """A list of ``modules``, each of which must be a ``kind``.

    >>> all_of(nn.ModuleList([nn.Linear(2, 3)]), nn.Linear)[0].out_features
    3
    """
    found: list[Part] = []
    for module in modules:
        assert isinstance(module, kind)
        found.append(module)
    return found
