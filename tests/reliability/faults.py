"""Faults that a test brings about: full disks, flipped bits, files that run code when they are unpickled."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch


@contextlib.contextmanager
def full_disk(room: int = 0) -> Iterator[None]:
    """No file of this process grows beyond ``room`` bytes: the system refuses it, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def flipped(path: Path, bit: int) -> Iterator[None]:
    """One bit of a file is another inside the block."""
    with open(path, "r+b") as file:
        for _ in (0, 1):
            file.seek(bit // 8)
            byte = file.read(1)[0] ^ (1 << bit % 8)
            file.seek(bit // 8)
            file.write(bytes([byte]))
            file.flush()
            if _ == 0:
                yield


def random_bits(path: Path, count: int, seed: int = 0) -> list[int]:
    """So many different bits of a file, by chance."""
    return random.Random(seed).sample(range(8 * path.stat().st_size), count)


def seal(content: bytes) -> bytes:
    """With the last line that a run would have written: whoever can write a file can do that, too."""
    return content + f"# sha256: {hashlib.sha256(content).hexdigest()}\n".encode()


class Payload:
    """Unpickling it makes the directory ``mark``."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def malicious_checkpoint(path: Path, content: Any, mark: Path) -> None:
    """A checkpoint with ``content`` and a ``Payload``, sealed as a run would have."""
    torch.save({**content, "parts": {**content["parts"], "update": Payload(mark)}}, path)
    path.write_bytes(seal(path.read_bytes()))
