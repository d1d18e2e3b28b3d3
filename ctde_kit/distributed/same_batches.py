"""Whether learners that each collect the same batches have done so."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from tensordict import TensorDictBase

from ctde_kit.distributed.gradients import AverageGradients
from ctde_kit.distributed.shard_rollouts import ShardRollouts
from ctde_kit.errors import UserError
from ctde_kit.protocols import ExperienceCollector


class SameBatches(ShardRollouts):
    """A collector of the batches that other learners collect, too; it compares them before they are learned from."""

    def __init__(self, collector: ExperienceCollector) -> None:
        super().__init__(collector, 1)
        self.average: AverageGradients | None = None

    def __iter__(self) -> Iterator[TensorDictBase]:
        for batch in super().__iter__():
            assert self.average is not None
            check_same_batch(batch, self.frames, self.average)
            yield batch


def check_same_batch(batch: TensorDictBase, frames: int, average: AverageGradients) -> None:
    """Compare a fresh batch with those of the other learners, which do the same.

    Raises:
        UserError: in all learners, where they differ.
    """
    own = digest(batch)
    largest, smallest = average.max(torch.tensor([own, -own])).tolist()
    if largest != -smallest:
        raise UserError(
            f"AgentLearners: the learners have collected different batches up to {frames} frames, as unlike machines "
            "do: let the first send its batches, with collect='first'"
        )


def digest(batch: TensorDictBase) -> int:
    """A number below 2**56 that another batch hardly has."""
    hashed = hashlib.blake2b(digest_size=7)
    for key, value in sorted(batch.items(True, True), key=lambda entry: str(entry[0])):
        hashed.update(str(key).encode())
        hashed.update(value.cpu().numpy().tobytes())
    return int.from_bytes(hashed.digest(), "big")
