"""Numbers the episodes in batches; an episode keeps its number from one batch to the next."""

from __future__ import annotations

import torch
from torch import Tensor

from ctde_kit.protocols import StateDict

TRAJ_IDS = ("collector", "traj_ids")


class TrajectoryNumbers:
    """Numbers episodes in the order in which they begin, as TorchRL's collectors do.

    Args:
        n_envs: how many episodes run at a time.

    >>> import torch
    >>> numbers = TrajectoryNumbers(2)
    >>> done = torch.tensor([[False, True, False], [False, False, True]]).unsqueeze(-1)
    >>> numbers(done).tolist(), numbers(done).tolist()
    ([[0, 0, 2], [1, 1, 1]], [[2, 2, 4], [3, 3, 3]])
    """

    def __init__(self, n_envs: int):
        self.current = torch.arange(n_envs)
        self.begun = n_envs

    def __call__(self, done: Tensor) -> Tensor:
        """The number of each step's episode, int64 ``[n_envs, T]``, from ``done`` ``[n_envs, T, 1]``."""
        numbers, current = [], self.current.to(done.device)
        for ends in done.squeeze(-1).unbind(1):
            numbers.append(current)
            current = torch.where(ends, self.begun + ends.cumsum(0) - 1, current)
            self.begun += int(ends.sum())
        self.current = current
        return torch.stack(numbers, 1)

    def begin_all(self) -> None:
        """All envs begin new episodes."""
        self.current = self.begun + torch.arange(len(self.current))
        self.begun += len(self.current)

    def state_dict(self) -> StateDict:
        """The running episodes, and how many have begun."""
        return {"current": self.current.clone(), "begun": self.begun}

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Restore what ``state_dict`` returned."""
        self.current, self.begun = state_dict["current"].clone(), state_dict["begun"]
