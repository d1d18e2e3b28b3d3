"""Files that are written whole or not at all, and that show when they were damaged."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast

__all__ = ["JsonObject", "remove_empty", "replacing", "seal_holds", "sync_directory"]

JsonObject: TypeAlias = dict[str, Any]
"""An object of a JSON or YAML file: values by name, of whatever kinds the file holds."""

# The last line of a sealed file. Readers skip it: in YAML it is a comment, and in a zip archive it comes after the end.
SEAL = re.compile(rb"# sha256: ([0-9a-f]{64})\n")
SEAL_SIZE = len("# sha256: ") + 64 + 1
# Bytes that are read at once to check a seal.
BLOCK = 2**20
# Bytes of the smallest write that is hashed in another thread; waking it would take longer than hashing fewer.
HASHED_BESIDE = 2**18


class _Sealing:
    """A file that hashes what is written to it; large blocks are hashed while they are being written."""

    def __init__(self, file: BinaryIO, pool: ThreadPoolExecutor) -> None:
        self._file, self._pool, self._hash = file, pool, hashlib.sha256()

    def write(self, content: bytes | memoryview) -> int:
        if memoryview(content).nbytes < HASHED_BESIDE:
            self._hash.update(content)
            return self._file.write(content)
        hashed = self._pool.submit(self._hash.update, content)
        try:
            return self._file.write(content)
        finally:
            hashed.result()

    def flush(self) -> None:
        self._file.flush()

    def seal(self) -> None:
        self._file.write(b"# sha256: %s\n" % self._hash.hexdigest().encode())


@contextlib.contextmanager
def replacing(path: Path, *, sealed: bool = False) -> Iterator[BinaryIO]:
    """A new file that takes the place of ``path`` once it is whole and on the disk; until then ``path`` is as it was.

    It is written beside ``path``, synced and renamed, so that neither a kill nor a full disk leaves half a file.

    Args:
        path: of the file; its directory exists.
        sealed: a last line holds the SHA-256 of all others, for ``seal_holds``.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "config.yaml"
    >>> with replacing(path, sealed=True) as file:
    ...     _ = file.write(b"seed: 0" + bytes([10]))
    >>> path.read_text()[:26]
    'seed: 0\\n# sha256: 6a5a163c'
    """
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        with open(partial, "xb") as file:
            if sealed:
                with ThreadPoolExecutor(1) as pool:
                    sealing = _Sealing(file, pool)
                    yield cast(BinaryIO, sealing)  # it has the methods that writers call
                    sealing.seal()
            else:
                yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def seal_holds(file: BinaryIO) -> bool:
    """Whether a file ends with the SHA-256 of all before it, as ``replacing`` writes it; if so, leaves it at byte 0."""
    size = file.seek(0, os.SEEK_END) - SEAL_SIZE
    if size < 0:
        return False
    file.seek(size)
    seal = SEAL.fullmatch(file.read())
    file.seek(0)
    if seal is None:
        return False
    content, rest = hashlib.sha256(), size
    while rest > 0 and (block := file.read(min(BLOCK, rest))):
        content.update(block)
        rest -= len(block)
    file.seek(0)
    return content.hexdigest().encode() == seal[1]


def sync_directory(directory: Path) -> None:
    """Write a directory's file names to the disk, where its file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_empty(directories: Iterable[Path]) -> None:
    """Remove those of these directories that are empty, each once those before it are gone."""
    for directory in directories:
        with contextlib.suppress(OSError):
            directory.rmdir()
