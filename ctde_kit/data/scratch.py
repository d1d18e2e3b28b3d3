"""Directories that are removed when the program that made them ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from ctde_kit.errors import UserError

PREFIX, LOCK = "ctde_kit_replay_", ".lock"


class ScratchDirectory:
    """A new directory in ``parent``, which only this user can enter and no other program uses.

    Its owner must call ``remove``. A program that is killed leaves its directory behind; the next program with the same
    ``parent`` removes it.

    Args:
        parent: the directory above it, which is made if it does not exist; ``None`` for the system's temporary
            directory.

    Raises:
        UserError: if ``parent`` cannot be written, or belongs to another user, who could replace what is in it.

    >>> import tempfile
    >>> parent = tempfile.mkdtemp()
    >>> ScratchDirectory(parent).path.parent == ScratchDirectory(parent).path.parent == Path(parent)
    True
    """

    def __init__(self, parent: str | None) -> None:
        above = Path(parent or tempfile.gettempdir())
        try:
            above.mkdir(mode=0o700, parents=True, exist_ok=True)
            owner = above.stat().st_uid
            if owner not in (0, os.getuid()):
                raise UserError(
                    f"Replay: directory={str(above)!r}: it belongs to user {owner}, not to you; choose one of your own"
                )
            _remove_abandoned(above)
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=above))  # with mode 0700
            self._lock = os.open(self.path / f"{LOCK}.new", os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            os.rename(self.path / f"{LOCK}.new", self.path / LOCK)  # with this name it is locked from the first moment
        except OSError as error:
            raise UserError(f"Replay: directory={str(above)!r}: it cannot be written ({error.strerror})") from error
        self._process = os.getpid()

    def remove(self) -> None:
        """Remove it with all that is in it; does nothing in a forked process."""
        if os.getpid() == self._process:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)


def _remove_abandoned(above: Path) -> None:
    """Remove directories of this user's programs that are gone: nobody holds their locks."""
    for path in above.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if path.is_symlink() or path.stat().st_uid != os.getuid():
                continue
            lock = os.open(path / LOCK, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
