"""What goes wrong in a worker process, as one line; the worker's own traceback is kept in a file."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import ctde_kit
from ctde_kit.errors import UserError, WorkerError

TRACEBACK = "worker_traceback.txt"
_KIT = Path(ctde_kit.__file__).parent
_PLACE = re.compile(r'File "(.+)", line (\d+)')


@contextlib.contextmanager
def worker_errors(directory: Path) -> Iterator[None]:
    """Inside the block a ``WorkerError`` becomes a ``UserError`` that says where the worker's traceback is.

    Args:
        directory: of the run, where it is written.
    """
    try:
        yield
    except WorkerError as error:
        notes, message = _notes(error), _in_options(error)
        if notes:
            directory.mkdir(parents=True, exist_ok=True)
            (directory / TRACEBACK).write_text("\n".join(notes))
            message = f"{message}; its traceback is in {(directory / TRACEBACK).absolute()}"
        raise UserError(message) from error


def with_place(error: WorkerError) -> str:
    """The error's message, and the line that raised, for commands that have no directory to keep the traceback in.

    Lines of the kit are left out: there the message says what is wrong with what the environment gave.
    """
    notes = _notes(error)
    if not notes:
        return _in_options(error)
    file, line = _PLACE.findall(notes[-1])[-1]
    place = "" if Path(file).is_relative_to(_KIT) else f" ({file}, line {line})"
    return f"{_in_options(error)}{place}; mend the environment"


def _notes(error: WorkerError) -> list[str]:
    return getattr(error, "__notes__", [])


def _in_options(error: WorkerError) -> str:
    return str(error).replace("worker_timeout", "task.worker_timeout")
