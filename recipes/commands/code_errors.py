"""What goes wrong in a worker process or in the user's own code, as one line; the traceback is kept in a file."""

from __future__ import annotations

import contextlib
import re
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import ctde_kit
from ctde_kit.errors import CallbackError, NotFiniteError, UserError, WorkerError, one_line
from ctde_kit.recipes.configs.own_modules import own_line

WORKER_TRACEBACK, OWN_TRACEBACK = "worker_traceback.txt", "own_code_traceback.txt"
_KIT = Path(ctde_kit.__file__).parent
_STANDARD = Path(sysconfig.get_path("stdlib"))
_PLACE = re.compile(r'File "(.+)", line (\d+)')


@contextlib.contextmanager
def code_errors(directory: Path, how_to_go_on: Callable[[], str] | None = None) -> Iterator[None]:
    """Inside the block what a worker or the user's own code raises becomes a ``UserError`` of one line.

    Args:
        directory: of the run, where the traceback is written; the line says so.
        how_to_go_on: what to do once the environment is mended.
    """
    for name in (WORKER_TRACEBACK, OWN_TRACEBACK):
        # Of a start before this one.
        (directory / name).unlink(missing_ok=True)

    def advice() -> str:
        return "" if how_to_go_on is None else f"; mend it, and {how_to_go_on()}"

    try:
        yield
    except WorkerError as error:
        notes, message = _notes(error), f"{_in_options(error)}{_place(error)}"
        if notes:
            message = f"{message}; its traceback is in {kept_traceback(directory / WORKER_TRACEBACK, notes)}{advice()}"
        raise UserError(message) from error
    except (UserError, NotFiniteError, CallbackError):
        raise
    # Also `sys.exit()` in an environment.
    except (Exception, SystemExit) as error:
        message = of_own_code(error)
        if message is None:
            raise
        path = kept_traceback(directory / OWN_TRACEBACK, traceback.format_exception(error))
        raise UserError(f"{message}; its traceback is in {path}{advice()}") from error


def of_own_code(error: BaseException) -> str | None:
    """One line for what the user's own code raised, an environment for example; ``None`` for other errors."""
    place = own_line(error)
    if place is None:
        return None
    reason = one_line(error, 200)
    return f"{place.filename}, line {place.lineno}, in {place.name}: {type(error).__name__}: {reason}"


def with_place(error: WorkerError) -> str:
    """The error's message, and the line that raised, for commands that have no directory to keep the traceback in.

    Lines of the kit are left out: there the message says what is wrong with what the environment gave. So are those of
    libraries that the environment calls.
    """
    return f"{_in_options(error)}{_place(error)}{'; mend the environment' if _notes(error) else ''}"


def _place(error: WorkerError) -> str:
    notes = _notes(error)
    if not notes:
        return ""
    # The innermost ones last; a kit that is at fault is below all of the environment's.
    places = [(Path(file), line) for file, line in _PLACE.findall(notes[-1]) if not _is_library(Path(file))]
    file, line = places[-1] if places else (_KIT, "")
    return "" if file.is_relative_to(_KIT) else f" ({file}, line {line})"


def _is_library(file: Path) -> bool:
    return "site-packages" in file.parts or file.is_relative_to(_STANDARD)


def kept_traceback(path: Path, lines: list[str]) -> Path:
    """Write a traceback to ``path``; returns the whole path, for messages."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line if line.endswith("\n") else f"{line}\n" for line in lines))
    return path.absolute()


def _notes(error: WorkerError) -> list[str]:
    return getattr(error, "__notes__", [])


def _in_options(error: WorkerError) -> str:
    return str(error).replace("worker_timeout", "task.worker_timeout")
