"""A random stream that belongs to one env, apart from the program's."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator

import numpy as np
import torch

from ctde_kit.protocols import StateDict


class RandomStream:
    """The states of torch's, numpy's and python's generators, put in place while an env draws.

    VMAS draws from one stream that all its envs share; with a stream each, an evaluation env does not change
    what the training env draws.

    >>> stream = RandomStream(0)
    >>> with stream.active():
    ...     first = torch.rand(2)
    >>> stream.seed(0)
    >>> with stream.active():
    ...     assert torch.equal(first, torch.rand(2))
    """

    def __init__(self, seed: int | None, device: torch.device | str = "cpu"):
        self.device = torch.device(device)
        self.seed(seed)

    def seed(self, seed: int | None) -> None:
        """Start anew from ``seed``; from the operating system's entropy for ``None``, so that no two streams agree."""
        if seed is None:
            seed = int.from_bytes(os.urandom(7), "little")
        outside = self._read()
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        self._state = self._read()
        self._write(outside)

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Draw from this stream inside the block, and leave the program's generators as they were."""
        outside = self._read()
        self._write(self._state)
        try:
            yield
        finally:
            self._state = self._read()
            self._write(outside)

    def _read(self) -> StateDict:
        state: StateDict = {"torch": torch.get_rng_state(), "numpy": np.random.get_state(), "python": random.getstate()}
        if self.device.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state(self.device)
        return state

    def _write(self, state: StateDict) -> None:
        torch.set_rng_state(state["torch"])
        np.random.set_state(state["numpy"])
        random.setstate(state["python"])
        if "cuda" in state and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda"], self.device)

    def state_dict(self) -> StateDict:
        """The generators' states, as tensors and Python values."""
        kind, keys, *rest = self._state["numpy"]
        return {**self._state, "numpy": (kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest)}

    def load_state_dict(self, state_dict: StateDict) -> None:
        kind, keys, *rest = state_dict["numpy"]
        self._state = {**state_dict, "numpy": (kind, keys.numpy().astype(np.uint32), *rest)}
