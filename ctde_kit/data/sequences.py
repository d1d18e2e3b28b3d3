"""Runs of consecutive steps as the items of a replay."""

from __future__ import annotations

from typing import Any

from tensordict import TensorDictBase, cat, stack

from ctde_kit.data.tensordict_state import from_state, to_state
from ctde_kit.errors import UserError


class Sequences:
    """Cuts what each env does into items ``[burn_in + length]``, each with its stored hidden states.

    Every step is learnt in one item, after the ``burn_in`` steps before it (Kapturowski et al. 2019, section 3, whose
    sequences overlap by half; here they overlap by the burn-in). An item may cross the end of an episode: networks
    reset their hidden state there, and returns end there. Steps that fill no whole item wait for the next batch, which
    must come from the same envs in the same order.

    Args:
        length: steps that are learnt.
        burn_in: steps before them.

    >>> import torch
    >>> from tensordict import TensorDict
    >>> sequences = Sequences(length=4, burn_in=1)
    >>> sequences.cut(TensorDict({"t": torch.arange(10).expand(2, 10)}, [2, 10]))["t"].tolist()
    [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8], [0, 1, 2, 3, 4], [4, 5, 6, 7, 8]]
    """

    def __init__(self, length: int, burn_in: int = 0):
        if length < 1 or burn_in < 0:
            raise UserError(f"replay.length={length}, replay.burn_in={burn_in}: expected at least 1 and 0 steps")
        self.length, self.burn_in = length, burn_in
        self._waiting: TensorDictBase | None = None

    @property
    def frames_per_item(self) -> int:
        """Steps an item, burn-in included."""
        return self.burn_in + self.length

    def cut(self, batch: TensorDictBase) -> TensorDictBase | None:
        """The items ``[n, burn_in + length]`` that a batch ``[n_envs, T]`` completes, ``None`` for none."""
        if self._waiting is not None and len(self._waiting) != len(batch):
            raise UserError(f"replay: expected batches of the same {len(self._waiting)} envs, found {len(batch)}")
        steps = batch if self._waiting is None else cat([self._waiting, batch], 1)
        count = (steps.shape[1] - self.burn_in) // self.length
        items = None
        if count > 0:
            starts = range(0, count * self.length, self.length)
            items = stack([steps[:, start : start + self.frames_per_item] for start in starts], 1).flatten(0, 1)
            steps = steps[:, count * self.length :]
        self._waiting = steps.clone() if steps.shape[1] else None
        return items

    def state_dict(self) -> dict[str, Any]:
        """The steps that wait."""
        return {"waiting": to_state(self._waiting)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._waiting = from_state(state_dict["waiting"])
