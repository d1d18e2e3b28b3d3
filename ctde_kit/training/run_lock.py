"""One writer per run directory."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from ctde_kit.errors import UserError
from ctde_kit.files import remove_empty

LOCK, OWNER = ".lock", ".owner"


class RunInUseError(UserError):
    """Another process, or another run of this one, writes a run's directory; the message names process and host."""


@contextlib.contextmanager
def sole_writer(directory: Path) -> Iterator[None]:
    """Inside the block no other process on this machine writes the run in ``directory``; reading needs no lock.

    The operating system frees the lock when its process ends, however that happens.

    Args:
        directory: of the run; it is made, with those above it, and these are removed again where nothing is written.

    Raises:
        RunInUseError: where another process, or another run of this one, has it.
        UserError: where the directory cannot be written.

    >>> import tempfile
    >>> with sole_writer(Path(tempfile.mkdtemp()) / "run"):
    ...     print("writing")
    writing
    """
    made = [path for path in (directory, *directory.parents) if not path.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory / LOCK, timeout=0)
        lock.acquire()
    except Timeout as error:
        raise RunInUseError(
            f"{directory} is in use by {_owner(directory)}: wait until it has ended, or choose another directory"
        ) from error
    except OSError as error:
        raise UserError(
            f"run directory {directory} cannot be written ({error.strerror}): choose another path"
        ) from error
    try:
        (directory / OWNER).write_text(f"process {os.getpid()} on host {socket.gethostname()}\n")
        yield
    finally:
        (directory / OWNER).unlink(missing_ok=True)
        if [path.name for path in directory.iterdir()] == [LOCK]:
            (directory / LOCK).unlink()
        lock.release()
        remove_empty(made)


def _owner(directory: Path) -> str:
    try:
        return (directory / OWNER).read_text().strip()
    except OSError:
        return "another process"
