"""Branches on data that a graph can skip, since the general branch gives the same result."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import Protocol

from torch import Tensor

from ctde_kit.graph.torch_calls import TorchFunction


class Shortcuts(Protocol):
    """What is known about code that branches on ``any()`` or ``all()`` of a tensor.

    Such a branch is a shortcut where the branch for some rows, but not all, gives the right result for any rows. A
    graph always takes this branch: ``any()`` is true, ``all()`` is false.
    """

    def covers(self, frame: FrameType) -> bool:
        """Whether the branches of the code that ``frame`` runs are shortcuts."""
        ...

    def guarded(self, frame: FrameType, condition: Tensor, /) -> FrameType | None:
        """The frame of an ``if`` that is no shortcut, whose test is the ``condition`` on which ``frame`` branches.

        What the body of that ``if`` writes is undone where the condition is false. ``None``: nothing is undone.
        """
        ...

    def correct(self, function: TorchFunction, frame: FrameType, before: object, after: object, /) -> object:
        """What ``function`` of torch, called in ``frame``, gives in the graph.

        Args:
            function: the function that was called.
            frame: of the code that called it.
            before: its first argument.
            after: its result, which is returned where nothing is to be corrected.
        """
        ...


class PackageShortcuts:
    """All branches on ``any()`` and ``all()`` in the files of some packages are shortcuts."""

    def __init__(self, *packages: ModuleType):
        self._folders = tuple(f"{Path(str(package.__file__)).parent}/" for package in packages)

    def covers(self, frame: FrameType) -> bool:
        return frame.f_code.co_filename.startswith(self._folders)

    def guarded(self, frame: FrameType, condition: Tensor) -> FrameType | None:
        return None

    def correct(self, function: TorchFunction, frame: FrameType, before: object, after: object) -> object:
        return after


_active: list[Shortcuts] = []


@contextlib.contextmanager
def taking_shortcuts(shortcuts: Shortcuts) -> Iterator[None]:
    """A function that is traced inside the block may branch as ``shortcuts`` says; eager calls are not affected."""
    _active.append(shortcuts)
    try:
        yield
    finally:
        _active.pop()


def active_shortcuts() -> list[Shortcuts]:
    """The shortcuts of all ``taking_shortcuts`` blocks that are running."""
    return _active
