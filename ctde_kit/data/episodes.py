"""Replay items that are whole episodes, padded to one length."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase, cat
from torch import Tensor

from ctde_kit.data.tensordict_state import from_state, to_state
from ctde_kit.entries import device_of
from ctde_kit.errors import UserError
from ctde_kit.keys import DONE, IS_INIT, NEXT, PADDING_MASK
from ctde_kit.protocols import StateDict


class Episodes:
    """Cuts batches into whole episodes: items ``[max_steps]``, each available once its episode is done.

    Shorter episodes are padded with zeros; ``("collector", "mask")`` bool ``[max_steps]`` is true for real steps, as in
    TorchRL's ``split_trajectories``. Envs are independent: one may start its next episode while others continue. An
    unfinished episode is dropped when its env starts another one, as after a checkpoint that resets the envs.

    Args:
        max_steps: length of the longest episode.

    Raises:
        UserError: for a longer episode.

    >>> import torch
    >>> from tensordict import TensorDict
    >>> from ctde_kit.data import Episodes
    >>> done = torch.tensor([[False, True, False]]).unsqueeze(-1)  # one env, whose episode ends at its second step
    >>> steps = {"is_init": torch.tensor([[[True], [False], [True]]]), "next": {"done": done}}
    >>> episodes = Episodes(max_steps=4).cut(TensorDict(steps, [1, 3]))
    >>> episodes["collector", "mask"]
    tensor([[ True,  True, False, False]])
    """

    def __init__(self, max_steps: int):
        if max_steps < 1:
            raise UserError(f"Episodes: max_steps={max_steps}: expected at least 1 step")
        self.max_steps = max_steps
        self._open: TensorDictBase | None = None
        self._length = torch.zeros(0, dtype=torch.long)

    def __repr__(self) -> str:
        return f"Episodes(max_steps={self.max_steps})"

    @property
    def frames_per_item(self) -> int:
        """Steps per item, including padding."""
        return self.max_steps

    def cut(self, batch: TensorDictBase) -> TensorDictBase | None:
        """The episodes ``[n, max_steps]`` that end within a batch ``[n_envs, T]``; ``None`` if none does."""
        if self._open is None:
            shape = (len(batch), self.max_steps)
            self._open = batch[:, :1].expand(*shape).clone().zero_()
            self._length = torch.zeros(len(batch), dtype=torch.long, device=device_of(batch))
        if len(self._open) != len(batch):
            raise UserError(f"Episodes: expected batches of the same {len(self._open)} envs, found {len(batch)}")
        finished = [item for t in range(batch.shape[1]) if (item := self._take(batch[:, t])) is not None]
        return cat(finished) if finished else None

    def _take(self, step: TensorDictBase) -> TensorDictBase | None:
        """Add one step ``[n_envs]`` to the open episodes; returns those that are done."""
        assert self._open is not None
        is_init = step.get(IS_INIT, None)
        if is_init is not None:
            self._length = self._length.masked_fill(is_init.squeeze(-1), 0)
        if (self._length >= self.max_steps).any():
            raise UserError(f"Episodes: max_steps={self.max_steps}: an episode is longer than that; make it larger")
        self._open[torch.arange(len(step), device=self._length.device), self._length] = step
        self._length = self._length + 1
        done = step.get((NEXT, DONE)).squeeze(-1)
        if not done.any():
            return None
        episodes = _padded(self._open[done], self._length[done])
        self._length = self._length.masked_fill(done, 0)
        return episodes

    def state_dict(self) -> StateDict:
        """The unfinished episodes."""
        return {"open": to_state(self._open), "length": self._length.clone()}

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Restore what ``state_dict`` returned."""
        self._open, self._length = from_state(state_dict["open"]), state_dict["length"].clone()


def _padded(episodes: TensorDictBase, length: Tensor) -> TensorDictBase:
    """``episodes`` ``[n, max_steps]`` with zeros from step ``length`` ``[n]`` on, and with the mask of real steps."""
    valid_mask = torch.arange(episodes.shape[1], device=length.device) < length.unsqueeze(-1)

    def zeroed(value: Tensor) -> Tensor:
        return value.masked_fill(~valid_mask.reshape(*valid_mask.shape, *[1] * (value.ndim - 2)), 0)

    return episodes.apply(zeroed).set(PADDING_MASK, valid_mask)  # pyright: ignore[reportOptionalMemberAccess]  # it filters nothing
