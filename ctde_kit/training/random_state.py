"""The state of the program's random generators: Python's, numpy's and torch's."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch

from ctde_kit.protocols import StateDict


def random_state() -> StateDict:
    """What all of them draw next, as tensors and plain values.

    >>> import torch
    >>> from ctde_kit.training import random_state, restore_random_state
    >>> before = random_state()
    >>> drawn = torch.rand(3)
    >>> restore_random_state(before)
    >>> torch.equal(torch.rand(3), drawn)
    True
    """
    kind, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": (kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest),
        "python": random.getstate(),
    }


def restore_random_state(state: StateDict) -> None:
    """Set all of them to a state that ``random_state`` returned.

    >>> from ctde_kit.training import random_state, restore_random_state
    >>> restore_random_state(random_state())
    """
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    random.setstate(state["python"])


@contextlib.contextmanager
def unchanged_random_state() -> Iterator[None]:
    """Leave all of them after the block as they were before it.

    >>> import torch
    >>> from ctde_kit.training import unchanged_random_state
    >>> with unchanged_random_state():
    ...     drawn = torch.rand(3)
    >>> torch.equal(torch.rand(3), drawn)
    True
    """
    before = random_state()
    try:
        yield
    finally:
        restore_random_state(before)
