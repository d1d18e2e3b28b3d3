"""How often replay is learnt from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from tensordict import TensorDictBase

from ctde_kit.training.parts import Metrics


class UpdatesPerFrame:
    """A fixed number of updates for every frame, so that more parallel envs do not train less.

    Updates that are due for a fraction of a frame are made up later. After each one the buffer is handed the sample
    back, for its priorities.

    Args:
        updates_per_frame: may be less than one: 1000 updates for 6000 frames are ``1/6``.
        learning_starts: frames before the first update; they call for no updates later.
    """

    def __init__(self, updates_per_frame: float, learning_starts: int = 0):
        self.updates_per_frame, self.learning_starts = updates_per_frame, learning_starts
        self.updates = 0

    def __call__(self, buffer: Any, update: Callable[[TensorDictBase], Metrics]) -> Iterator[Metrics]:
        frames = max(0, buffer.frames - self.learning_starts)
        # A ratio such as 1/6 is a rounded one: 6000 frames are 1000 updates all the same.
        due = math.floor(self.updates_per_frame * frames + 1e-6)
        for minibatch in buffer.samples(due - self.updates):
            metrics = update(minibatch)
            buffer.update_priority(minibatch)
            self.updates += 1
            yield metrics

    def state_dict(self) -> dict[str, Any]:
        """Updates made so far."""
        return {"updates": self.updates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.updates = state_dict["updates"]
