"""Programs that a thread runs while others may fork: no child keeps what they write to, and none is left behind."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence

_starting = threading.Lock()
_forking = threading.local()
# Longer than trying a processor's vector instructions takes; then the fork goes on.
PATIENCE_SECONDS = 30.0


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """While it lasts, forks wait: a child would hold the pipes of a program that starts, for as long as it lives.

    >>> from ctde_kit.graph.background import starting
    >>> with starting():
    ...     pass
    """
    with _starting:
        yield


def _before_fork() -> None:
    _forking.holds = False  # should a signal end the waiting
    _forking.holds = _starting.acquire(timeout=PATIENCE_SECONDS)


def _after_fork() -> None:
    if _forking.holds:
        _forking.holds = False
        _starting.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


def run(command: Sequence[str]) -> None:
    """Run a program to its end, or to that of this process, and raise ``CalledProcessError`` where it fails.

    >>> import sys
    >>> from ctde_kit.graph.background import run
    >>> run([sys.executable, "-c", "print('not shown')"])
    """
    with starting():
        program = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
    end = functools.partial(_end, program.pid, os.getpid())
    atexit.register(end)
    try:
        if program.wait():
            raise subprocess.CalledProcessError(program.returncode, command)
    finally:
        atexit.unregister(end)


def _end(group: int, owner: int) -> None:
    """End a program and what it has started; processes that were forked from its owner leave it alone."""
    if os.getpid() == owner:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGTERM)
