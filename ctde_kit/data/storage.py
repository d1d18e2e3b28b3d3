"""Storages of replay items: in memory, on the training device, or in memory-mapped files."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from typing import Any, Literal, get_args

import torch
from tensordict import TensorDictBase
from torchrl._utils import logger as torchrl_logger
from torchrl.data import LazyMemmapStorage, LazyTensorStorage

from ctde_kit.data.scratch import ScratchDirectory
from ctde_kit.errors import UserError

StoredOn = Literal["cpu", "device", "disk"]


def make_storage(
    capacity: int, on: StoredOn, device: torch.device | str = "cpu", directory: str | None = None
) -> LazyTensorStorage:
    """A TorchRL storage of ``capacity`` items.

    Args:
        capacity: number of items.
        on: main memory (``cpu``), the training ``device``, or memory-mapped files on ``disk``.
        device: the training device.
        directory: where a private directory is made for the memory-mapped files, which is deleted when the program
            ends; ``None`` for the system's temporary directory.
    """
    if on not in get_args(StoredOn):
        raise UserError(f"Replay: stored_on={on!r}: expected one of {', '.join(get_args(StoredOn))}")
    if on == "disk":
        scratch = ScratchDirectory(directory)
        # TorchRL's own cleanup would replace the program's signal handlers.
        storage = LazyMemmapStorage(capacity, scratch_dir=scratch.path, auto_cleanup=False)
        weakref.finalize(storage, scratch.remove)
        return storage
    return LazyTensorStorage(capacity, device=torch.device(device if on == "device" else "cpu"))


@contextlib.contextmanager
def quiet_torchrl() -> Iterator[None]:
    """Suppress TorchRL's log messages about the allocation of a storage."""
    level = torchrl_logger.level
    torchrl_logger.setLevel("WARNING")
    try:
        yield
    finally:
        torchrl_logger.setLevel(level)


def check_disk(capacity: int, item: TensorDictBase, directory: str | None) -> None:
    """Raise ``UserError`` if the disk has no room for ``capacity`` items like ``item``."""
    needed = capacity * sum(leaf.numel() * leaf.element_size() for leaf in item.values(True, True))
    where = directory or tempfile.gettempdir()
    free = shutil.disk_usage(where).free
    if needed > free:
        raise UserError(
            f"Replay: stored_on='disk': {where} has {free / 1e9:.3g} GB left, expected {needed / 1e9:.3g} GB; "
            "make capacity smaller or choose another directory"
        )


def reserve_disk(storage: LazyMemmapStorage) -> None:
    """Allocate all blocks of the files of an initialized storage.

    Otherwise the files are sparse, and a later write on a full disk would kill the program without an error message.

    Raises:
        UserError: if the disk is full.
    """
    content: Any = storage._storage  # TorchRL has no public way to its files
    for leaf in content.values(True, True):
        descriptor = os.open(leaf.filename, os.O_RDWR)
        try:
            os.posix_fallocate(descriptor, 0, os.fstat(descriptor).st_size)
        except OSError as error:
            raise UserError(
                f"Replay: stored_on='disk': {leaf.filename} cannot be written ({error.strerror}); free some space, or "
                "make capacity smaller or choose another directory"
            ) from error
        finally:
            os.close(descriptor)
