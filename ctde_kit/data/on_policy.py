"""One fresh batch, cut into random minibatches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey

from ctde_kit.errors import UserError


class OnPolicyBuffer:
    """Holds the latest batch ``[n_envs, T]`` and iterates over random minibatches of it, each entry once.

    Without ``sequence_length`` a minibatch is ``[minibatch_frames]``; with it, the batch is cut along time and a
    minibatch is ``[minibatch_frames / sequence_length, sequence_length]``, each slice with its stored hidden state in
    its first step. All minibatches have one shape: entries left over are dropped, others in each pass; those of a pass
    are views of one shuffled copy of the batch. TorchRL's ``ReplayBuffer`` has the same ``extend`` and iteration and
    can stand in its place; it copies every entry once more and does not cut sequences. It keeps nothing from one batch
    to the next, so there is no state to save.

    Args:
        minibatch_frames: frames a minibatch.
        sequence_length: steps a slice, ``None`` for single steps.
        keys: entries that minibatches have, where a batch has them; ``None`` for all. What a loss does not read
            need not be gathered.

    Raises:
        UserError: for sizes that do not divide as they must.

    >>> from tensordict import TensorDict
    >>> buffer = OnPolicyBuffer(minibatch_frames=6, sequence_length=3)
    >>> buffer.extend(TensorDict({"t": torch.arange(12).reshape(2, 6)}, [2, 6]))
    >>> [minibatch.shape for minibatch in buffer]
    [torch.Size([2, 3]), torch.Size([2, 3])]
    """

    def __init__(
        self, minibatch_frames: int, sequence_length: int | None = None, *, keys: Iterable[NestedKey] | None = None
    ):
        if minibatch_frames < 1 or (sequence_length is not None and sequence_length < 1):
            raise UserError(
                f"minibatch_frames={minibatch_frames}, sequence_length={sequence_length}: expected at least 1 of each"
            )
        if sequence_length is not None and minibatch_frames % sequence_length:
            raise UserError(
                f"minibatch_frames={minibatch_frames}: expected a multiple of sequence_length={sequence_length}"
            )
        self.minibatch_frames, self.sequence_length = minibatch_frames, sequence_length
        self.keys = None if keys is None else list(keys)
        self._items: TensorDictBase | None = None

    def extend(self, batch: TensorDictBase) -> None:
        """Take a new batch ``[n_envs, T]`` in place of the last one."""
        if batch.numel() < self.minibatch_frames:
            raise UserError(
                f"minibatch_frames={self.minibatch_frames}: the batch has only {batch.numel()} frames; make it smaller"
            )
        if self.keys is not None:
            batch = batch.select(*self.keys, strict=False)
        if self.sequence_length is None:
            self._items = batch.reshape(-1)
            return
        n_envs, length = batch.shape
        if length % self.sequence_length:
            raise UserError(
                f"sequence_length={self.sequence_length}: expected a divisor of the {length} steps that each env "
                "collects a batch"
            )
        self._items = batch.reshape(n_envs * length // self.sequence_length, self.sequence_length)

    def __iter__(self) -> Iterator[TensorDictBase]:
        if self._items is None:
            raise UserError("the buffer is empty: call extend(batch) first")
        size = self.minibatch_frames // (self.sequence_length or 1)
        order = torch.randperm(len(self._items), device=self._items.device)
        rows = order[: len(order) // size * size]
        # One gather an entry and pass, of which minibatches are views; indexing, made for any layout, is slower.
        shuffled = self._items.apply(
            lambda part: part.index_select(0, rows), batch_size=[len(rows), *self._items.batch_size[1:]]
        )
        assert shuffled is not None
        yield from shuffled.split(size)
