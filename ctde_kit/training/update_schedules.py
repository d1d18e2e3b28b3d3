"""Schedules of updates: how many gradient steps follow each collected batch, and on which minibatches."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from tensordict import TensorDictBase

from ctde_kit.errors import UserError
from ctde_kit.protocols import ReplayBuffer, StateDict
from ctde_kit.shards import average_of_all
from ctde_kit.training.parts import Metrics, Update


@dataclass(frozen=True)
class Epochs:
    """A fixed number of passes over the buffer's minibatches, as in PPO.

    Args:
        epochs: number of passes.
        target_kl: end the iteration once the mean ``approx_kl`` of an epoch exceeds this; ``None`` for never.

    Raises:
        UserError: in an iteration with ``target_kl``, if no metric of the update ends with ``approx_kl``.

    >>> import torch
    >>> from tensordict import TensorDict
    >>> import ctde_kit as ck
    >>> from ctde_kit.training import Epochs
    >>> buffer = ck.OnPolicyBuffer(minibatch_frames=5)
    >>> buffer.extend(TensorDict({}, [2, 5]))
    >>> len(list(Epochs(epochs=3)(buffer, lambda minibatch: {"loss_value": torch.zeros(())})))
    6
    """

    epochs: int
    target_kl: float | None = None

    def __call__(self, buffer: Iterable[TensorDictBase], update: Update) -> Iterator[Metrics]:
        for _ in range(self.epochs):
            divergences = []
            for minibatch in buffer:
                metrics = update(minibatch)
                divergences += [value for name, value in metrics.items() if name.endswith("approx_kl")]
                yield metrics
            if self.target_kl is not None and not divergences:
                raise UserError(
                    f"Epochs: target_kl={self.target_kl}: no metric of the update ends with 'approx_kl'; leave "
                    "target_kl None, or use a loss that gives it, such as MAPPOLoss"
                )
            if self.target_kl is not None and average_of_all(torch.stack(divergences).mean()) > self.target_kl:
                return


class UpdatesPerFrame:
    """A fixed number of updates on replayed samples per collected frame.

    Parallel envs collect more frames per batch, and so get more updates per batch. Fractions of an update are carried
    to later batches. After each update the sample goes back to the buffer, which reads the new priorities from it.

    Args:
        updates_per_frame: may be less than one: 1000 updates per 6000 frames are ``1/6``.
        learning_starts: frames to collect before the first update. These frames are never counted toward updates.

    >>> import torch
    >>> from tensordict import TensorDict
    >>> import ctde_kit as ck
    >>> from ctde_kit.training import UpdatesPerFrame
    >>> replay = ck.Replay(ck.data.Transitions(), capacity=100, batch_size=4)
    >>> replay.extend(TensorDict({"t": torch.zeros(2, 6)}, [2, 6]))
    >>> len(list(UpdatesPerFrame(1 / 6)(replay, lambda sample: {"loss_value": torch.zeros(())})))
    2
    """

    def __init__(self, updates_per_frame: float, learning_starts: int = 0):
        self.updates_per_frame, self.learning_starts = updates_per_frame, learning_starts
        self.updates = 0

    def __call__(self, buffer: ReplayBuffer, update: Update) -> Iterator[Metrics]:
        frames = max(0, buffer.frames - self.learning_starts)
        # A ratio such as 1/6 is rounded in floating point: 6000 frames must still give 1000 updates.
        due = math.floor(self.updates_per_frame * frames + 1e-6)
        for minibatch in buffer.samples(due - self.updates):
            metrics = update(minibatch)
            buffer.update_priority(minibatch)
            self.updates += 1
            yield metrics

    def state_dict(self) -> StateDict:
        """The number of updates made so far."""
        return {"updates": self.updates}

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Restore what ``state_dict`` returned."""
        self.updates = state_dict["updates"]
