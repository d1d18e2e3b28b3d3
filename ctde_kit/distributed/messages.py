"""What processes send each other: batches and weights as arrays, which are cheap to send."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

Path = tuple[str, ...]


@dataclass(frozen=True)
class Message:
    """A TensorDict as arrays.

    Args:
        entries: by path.
        sizes: the batch size of the root ``()`` and of each nested TensorDict.
    """

    entries: dict[Path, np.ndarray]
    sizes: dict[Path, tuple[int, ...]]


def pack(batch: TensorDictBase) -> Message:
    """A batch as a message.

    >>> from tensordict import TensorDict
    >>> from ctde_kit.distributed.messages import pack, unpack
    >>> batch = TensorDict({"done": torch.zeros(2, 3, 1, dtype=torch.bool)}, [2, 3])
    >>> unpack([pack(batch), pack(batch)]).shape
    torch.Size([4, 3])
    """
    nested = {_path(key): value for key, value in batch.items(True) if isinstance(value, TensorDictBase)}
    sizes = {(): tuple(batch.shape), **{path: tuple(value.shape) for path, value in nested.items()}}
    return Message({_path(key): value.cpu().numpy() for key, value in batch.items(True, True)}, sizes)


def unpack(messages: Sequence[Message], device: torch.device | None = None) -> TensorDict:
    """The batches in messages, one after the other along the first dimension, on ``device``."""
    first, n_rows = messages[0], sum(message.sizes[()][0] for message in messages)
    sizes = {path: (n_rows, *size[1:]) for path, size in first.sizes.items()}
    batch = TensorDict({}, sizes.pop(()), device=device)
    for path, size in sizes.items():
        batch.set(path, TensorDict({}, size, device=device))
    for path in first.entries:
        # Written anew: what arrives may be memory that several processes read.
        joined = torch.from_numpy(np.concatenate([message.entries[path] for message in messages]))
        batch.set(path, joined if device is None else joined.to(device))
    return batch


def to_arrays(state: dict[str, Any]) -> dict[str, Any]:
    """A module's ``state_dict`` with arrays in place of tensors; they share memory with tensors on the CPU."""
    return {name: value.detach().cpu().numpy() if isinstance(value, Tensor) else value for name, value in state.items()}


def to_tensors(state: dict[str, Any]) -> dict[str, Any]:
    """The ``state_dict`` that ``to_arrays`` sent."""
    return {
        name: torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value
        for name, value in state.items()
    }


def _path(key: str | tuple[str, ...]) -> Path:
    return (key,) if isinstance(key, str) else key
