"""Objects that live in processes of their own and answer calls: what collectors and members are run by."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from ctde_kit.capability import Capability
from ctde_kit.protocols import StateDict
from ctde_kit.training.random_state import random_state, restore_random_state, unchanged_random_state


class ProcessLostError(RuntimeError):
    """A process died or does not answer; the message says which it was and what is known, in one line."""


class Answer(Protocol):
    """What a call will return."""

    def is_there(self, seconds: float) -> bool:
        """Whether ``get`` has nothing to wait for, asked for at most so long.

        Raises:
            ProcessLostError: where the process gives no sign of life.
        """
        ...

    def get(self) -> Any:  # whatever the method returns
        """Wait for it.

        Raises:
            ProcessLostError: where the process is gone. What the method raised is raised here as it was there.
        """
        ...


class HostedObject(Protocol):
    """An object in a process of its own. It answers calls in the order in which they were asked."""

    def ask(self, method: str, *arguments: object) -> Answer:
        """Call a method; what it returns is there later."""
        ...

    def check_alive(self, seconds: float) -> None:
        """Ask its process for a sign of life, while it works, too.

        Raises:
            ProcessLostError: where there is none within so many seconds.
        """
        ...

    def end(self) -> None:
        """End its process, if there still is one."""
        ...


class Processes(Protocol):
    """Where objects can be hosted."""

    def start(self, make: Callable[[], object], name: str) -> HostedObject:
        """Host what ``make`` returns, called there; ``name`` is for messages."""
        ...

    def share(self, value: object) -> object:
        """A value that several calls take as an argument, sent once; there they get the value."""
        ...

    def close(self) -> None:
        """End all processes that were started here, and nothing else."""
        ...


class LocalProcesses:
    """Hosts objects in this process: for tests, a debugger, and machines without Ray.

    Each object has random streams of its own, as it would in another process. A call is answered when it is asked, so
    nothing runs side by side.

    >>> from ctde_kit.distributed import LocalProcesses
    >>> hosted = LocalProcesses().start(lambda: [3, 1, 2], "a list")
    >>> hosted.ask("index", 2).get()
    2
    """

    def __init__(self) -> None:
        self._hosted: list[LocalObject] = []

    def start(self, make: Callable[[], object], name: str) -> LocalObject:
        self._hosted.append(LocalObject(make))
        return self._hosted[-1]

    def share(self, value: object) -> object:
        # Elsewhere it would not change with what it was made of, either.
        return copy.deepcopy(value)

    def close(self) -> None:
        for hosted in self._hosted:
            hosted.end()
        self._hosted = []


@runtime_checkable
class Closes(Capability, Protocol):
    """An object that has something to end, where no process ends with it."""

    def close(self) -> object:
        """End it."""
        ...


class LocalObject:
    """An object in this process, with random streams of its own."""

    def __init__(self, make: Callable[[], object]) -> None:
        self._streams: StateDict | None = None
        self._object: object = None
        self._object = self._apart(make)

    def ask(self, method: str, *arguments: object) -> Answered:
        return Answered(self._apart(lambda: getattr(self._object, method)(*arguments)))

    def check_alive(self, seconds: float) -> None:
        """It lives as long as this process does."""

    def end(self) -> None:
        if isinstance(self._object, Closes):
            self._object.close()
        self._object = None

    def _apart(self, call: Callable[[], object]) -> object:
        with unchanged_random_state():
            if self._streams is not None:
                restore_random_state(self._streams)
            try:
                return call()
            finally:
                self._streams = random_state()


class Answered:
    """An answer that is there already."""

    def __init__(self, value: object) -> None:
        self._value = value

    def is_there(self, seconds: float) -> bool:
        return True

    def get(self) -> Any:
        return self._value
