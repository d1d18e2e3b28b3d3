"""Single steps as the items of a replay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tensordict import TensorDictBase


@dataclass(frozen=True)
class Transitions:
    """Every step of a batch ``[n_envs, T]`` is an item ``[]``."""

    frames_per_item = 1

    def cut(self, batch: TensorDictBase) -> TensorDictBase | None:
        """The items ``[n_envs * T]``."""
        return batch.reshape(-1)

    def state_dict(self) -> dict[str, Any]:
        """Nothing is carried from batch to batch."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """There is nothing to take over."""
