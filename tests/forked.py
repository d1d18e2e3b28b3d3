"""Processes that are forked from the tests', which spares the seconds of importing torch; they must not compute."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import TextIO


class Forked:
    """A child that runs ``work(say, ask)`` to its end: ``say`` sends a line, and ``ask`` waits for one."""

    def __init__(self, work: Callable[[Callable[[str], None], Callable[[], str]], object]):
        from_child, to_parent = os.pipe()
        from_parent, to_child = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(from_child)
                os.close(to_child)
                asked, told = os.fdopen(from_parent), os.fdopen(to_parent, "w", buffering=1)
                work(lambda line: print(line, file=told), lambda: asked.readline().strip())
            finally:
                os._exit(0)
        os.close(to_parent)
        os.close(from_parent)
        self._said: TextIO = os.fdopen(from_child)
        self._tell: TextIO = os.fdopen(to_child, "w", buffering=1)

    def said(self) -> str:
        """The next line of the child."""
        return self._said.readline().strip()

    def tell(self, line: str) -> None:
        print(line, file=self._tell)

    def is_alive(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def wait(self, seconds: float = 30.0) -> int:
        """Its exit code, or minus the number of the signal that ended it; it is killed after so many seconds."""
        deadline = time.monotonic() + seconds
        while self.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        if self.is_alive():
            os.kill(self.pid, signal.SIGKILL)
        self._said.close()
        self._tell.close()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
