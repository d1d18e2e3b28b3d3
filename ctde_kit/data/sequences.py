"""Replay items that are sequences of consecutive steps, with a burn-in for recurrent networks."""

from __future__ import annotations

from tensordict import TensorDictBase, cat, stack

from ctde_kit.data.tensordict_state import from_state, to_state
from ctde_kit.errors import UserError
from ctde_kit.protocols import StateDict


class Sequences:
    """Cuts each env's steps into sequences ``[burn_in + length]``, each with its stored hidden states.

    Every step but the first ``burn_in`` of each env is trained on in exactly one sequence, which also holds the
    ``burn_in`` steps before its trained ones (Kapturowski et al. 2019, section 3; their sequences overlap by half,
    these overlap by the burn-in). A sequence may contain the end of an episode: networks reset their hidden state
    there, and returns stop there. Steps that do not fill a sequence wait for the next batch, which must come from the
    same envs in the same order.

    Args:
        length: steps that are trained on.
        burn_in: steps before them, which only warm up the hidden state.

    >>> import torch
    >>> from tensordict import TensorDict
    >>> from ctde_kit.data import Sequences
    >>> sequences = Sequences(length=4, burn_in=1)
    >>> sequences.cut(TensorDict({"t": torch.arange(10).expand(2, 10)}, [2, 10]))["t"].tolist()
    [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8], [0, 1, 2, 3, 4], [4, 5, 6, 7, 8]]
    """

    def __init__(self, length: int, burn_in: int = 0):
        if length < 1 or burn_in < 0:
            raise UserError(f"Sequences: length={length}, burn_in={burn_in}: expected at least 1 and 0 steps")
        self.length, self.burn_in = length, burn_in
        self._waiting: TensorDictBase | None = None

    def __repr__(self) -> str:
        return f"Sequences(length={self.length}, burn_in={self.burn_in})"

    @property
    def frames_per_item(self) -> int:
        """Steps per item, including the burn-in."""
        return self.burn_in + self.length

    def cut(self, batch: TensorDictBase) -> TensorDictBase | None:
        """The sequences ``[n, burn_in + length]`` that a batch ``[n_envs, T]`` completes; ``None`` if there is none."""
        if self._waiting is not None and len(self._waiting) != len(batch):
            raise UserError(f"Sequences: expected batches of the same {len(self._waiting)} envs, found {len(batch)}")
        steps = batch if self._waiting is None else cat([self._waiting, batch], 1)
        count = (steps.shape[1] - self.burn_in) // self.length
        items = None
        if count > 0:
            starts = range(0, count * self.length, self.length)
            items = stack([steps[:, start : start + self.frames_per_item] for start in starts], 1).flatten(0, 1)
            steps = steps[:, count * self.length :]
        self._waiting = steps.clone() if steps.shape[1] else None
        return items

    def state_dict(self) -> StateDict:
        """The steps that wait for the next batch."""
        return {"waiting": to_state(self._waiting)}

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Restore what ``state_dict`` returned."""
        self._waiting = from_state(state_dict["waiting"])
