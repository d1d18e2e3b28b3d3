"""Handlers of SIGINT and SIGTERM that let a run end after its iteration, with a checkpoint."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from ctde_kit.errors import RunStopped

GRACE = 20.0
"""Seconds that an iteration gets to end."""
INSIST = 10.0
"""Seconds after which an interruption is repeated, in case some code has swallowed the first."""
SAME = 1.0
"""Seconds within which a second signal is the same one: some senders address the process and its group."""
STOPPING = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """What a run is told by SIGINT (Ctrl-C) and SIGTERM (Slurm, spot machines).

    The first one is noted, wherever the run is, and asks it to stop at the end of the iteration; where that takes
    longer than ``grace``, ``RunStopped`` is raised inside it. A second one ends the process at once. Outside of
    ``listening``, and in any but the main thread, nothing is noted.

    Args:
        grace: seconds that an iteration gets to end.

    >>> import os, signal
    >>> from ctde_kit.training.stop_signals import StopSignals
    >>> stop = StopSignals()
    >>> with stop.listening():
    ...     os.kill(os.getpid(), signal.SIGTERM)
    ...     stop.at_boundary()
    True
    """

    def __init__(self, grace: float = GRACE) -> None:
        self.grace = grace
        self.signal: int | None = None
        self._since, self._interruptions, self._process = 0.0, 0, os.getpid()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Note signals inside the block; afterwards they do what they did before."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._note) for number in STOPPING}
        before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._interrupt)
        try:
            yield
        finally:
            self.at_boundary()
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def at_boundary(self) -> bool:
        """Whether the run is to stop, asked at the end of an iteration; what follows is not interrupted."""
        if self.signal is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return self.signal is not None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a worker that was forked a moment ago
        if self.signal is None:
            self.signal, self._since = number, time.monotonic()
            signal.setitimer(signal.ITIMER_REAL, self.grace, INSIST)
            _say(f"stopping at the end of this iteration, or in {self.grace:g} s; again to stop at once")
        elif time.monotonic() - self._since > SAME:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None or os.getpid() != self._process:
            return
        self._interruptions += 1
        if self._interruptions > 2:
            os._exit(128 + self.signal)
        raise RunStopped("stopped", self.signal)


def _say(line: str) -> None:
    # A buffered stream may be in the middle of a write.
    with contextlib.suppress(OSError):
        os.write(2, f"\n{line}\n".encode())
