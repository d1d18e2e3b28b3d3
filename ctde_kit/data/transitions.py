"""Replay items that are single steps."""

from __future__ import annotations

from dataclasses import dataclass

from tensordict import TensorDictBase

from ctde_kit.protocols import StateDict


@dataclass(frozen=True)
class Transitions:
    """Cuts batches ``[n_envs, T]`` into single steps: items ``[]``.

    >>> import torch
    >>> from tensordict import TensorDict
    >>> from ctde_kit.data import Transitions
    >>> Transitions().cut(TensorDict({"t": torch.arange(6).reshape(2, 3)}, [2, 3])).shape
    torch.Size([6])
    """

    frames_per_item = 1

    def __repr__(self) -> str:
        return "Transitions()"

    def cut(self, batch: TensorDictBase) -> TensorDictBase | None:
        """The items ``[n_envs * T]``."""
        return batch.reshape(-1)

    def state_dict(self) -> StateDict:
        """Empty: no steps wait for the next batch."""
        return {}

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Does nothing."""
