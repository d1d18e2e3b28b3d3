"""Output that never ends a program, even where stdout or stderr is closed, or its reader left, as ``head`` does."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


@contextlib.contextmanager
def lasting_output() -> Iterator[None]:
    """Inside the block, what is written to a closed stdout or stderr is dropped, and lines are flushed at once."""
    before = sys.stdout, sys.stderr
    for number in (0, 1, 2):
        _keep_taken(number)
    sys.stdout, sys.stderr = _lasting(sys.stdout, 1), _lasting(sys.stderr, 2)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _keep_taken(number: int) -> None:
    """Open the null device where a descriptor is closed.

    Otherwise the next file that is opened would get the descriptor's number, and with it what programs print there.
    """
    try:
        os.fstat(number)
    except OSError:
        opened = os.open(os.devnull, os.O_RDWR)
        if opened != number:
            os.dup2(opened, number)
            os.close(opened)


def _lasting(stream: Any, number: int) -> Any:
    if stream is None:  # it was closed when Python started
        return open(number, "w", closefd=False)
    if hasattr(stream, "reconfigure") and not stream.isatty():
        stream.reconfigure(line_buffering=True)
    return LastingStream(stream)


class LastingStream:
    """A text stream whose errors end nothing: after the first one it writes to the null device."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write ``text``."""
        try:
            return self._stream.write(text)
        except (OSError, ValueError):  # ValueError where it was closed
            self._drop()
            return len(text)

    def flush(self) -> None:
        """Flush what was written."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._drop()

    def _drop(self) -> None:
        """Let the descriptor lead to the null device: what is buffered goes there, also when Python ends."""
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)
