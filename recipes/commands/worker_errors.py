"""What goes wrong in a worker process, as one line; the worker's own traceback is kept in a file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ctde_kit.errors import UserError, WorkerError

TRACEBACK = "worker_traceback.txt"


@contextlib.contextmanager
def worker_errors(directory: Path) -> Iterator[None]:
    """Inside the block a ``WorkerError`` becomes a ``UserError`` that says where the worker's traceback is.

    Args:
        directory: of the run, where it is written.
    """
    try:
        yield
    except WorkerError as error:
        notes = getattr(error, "__notes__", [])
        message = str(error).replace("worker_timeout", "task.worker_timeout")
        if notes:
            directory.mkdir(parents=True, exist_ok=True)
            (directory / TRACEBACK).write_text("\n".join(notes))
            message = f"{message}; its traceback is in {(directory / TRACEBACK).absolute()}"
        raise UserError(message) from error
