"""Loggers that can neither end nor hold up a run."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Protocol

LOG = logging.getLogger("ctde_kit")

WAITING = 100_000
"""Values that wait for a logger which does not answer; more are dropped."""
PATIENCE = 10.0
"""Seconds that a logger gets at the end of a run to write what waits."""


class ScalarLogger(Protocol):
    """What is used of TorchRL's loggers."""

    def log_scalar(self, name: str, value: float, step: int | None = None) -> None:
        """Log one value."""
        ...


class PatientLogger:
    """A TorchRL logger in a thread of its own: it warns once of an error or a server that is gone, and the run goes on.

    The thread also makes the logger, since some (MLflow's) belong to the thread that made them.

    Args:
        make: makes the logger; what it raises is raised.
        name: of the logger, for the warning.
        end: called in the logger's thread once all is logged.

    >>> from ctde_kit.training.reporting.patient_logger import PatientLogger
    >>> class Printer:
    ...     def log_scalar(self, name, value, step=None):
    ...         print(name, value, step)
    >>> logger = PatientLogger(Printer, "printer")
    >>> logger.log_scalar("eval/return_mean", 0.5, step=600)
    >>> logger.close()
    eval/return_mean 0.5 600
    """

    def __init__(self, make: Callable[[], ScalarLogger], name: str, end: Callable[[], object] = lambda: None) -> None:
        self._name, self._end, self._has_warned = name, end, False
        self._waiting: queue.Queue[tuple[str, float, int | None] | None] = queue.Queue(WAITING)
        made: queue.Queue[ScalarLogger | BaseException] = queue.Queue()
        self._thread = threading.Thread(target=self._serve, args=(make, made), name=f"{name}-logger", daemon=True)
        self._thread.start()
        logger = made.get()
        if isinstance(logger, BaseException):
            raise logger
        self.logger = logger

    def log_scalar(self, name: str, value: float, step: int | None = None) -> None:
        """Log one value, later."""
        try:
            self._waiting.put_nowait((name, value, step))
        except queue.Full:
            self._warn("it does not keep up")

    def close(self, patience: float = PATIENCE) -> None:
        """Wait until all is logged, but not longer than ``patience`` seconds."""
        try:
            self._waiting.put(None, timeout=patience)
            self._thread.join(patience)
        except queue.Full:
            pass
        if self._thread.is_alive():
            self._warn("it does not answer")

    def _serve(self, make: Callable[[], ScalarLogger], made: queue.Queue[ScalarLogger | BaseException]) -> None:
        try:
            logger = make()
        except BaseException as error:
            made.put(error)
            return
        made.put(logger)
        while (value := self._waiting.get()) is not None:
            name, number, step = value
            self._try(partial(logger.log_scalar, name, number, step=step))
        self._try(self._end)

    def _try(self, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as error:
            self._warn(" ".join(f"{type(error).__name__}: {error}".split())[:200])

    def _warn(self, reason: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            LOG.warning("logger=%s lost values (%s); the run goes on, and metrics.csv has them all", self._name, reason)
