"""A buffer of one fresh batch, which it splits into random minibatches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey

from ctde_kit.errors import UserError


class OnPolicyBuffer:
    """Holds the latest batch ``[n_envs, T]``; each iteration over it is one pass in random minibatches.

    Without ``sequence_length`` a minibatch is ``[minibatch_frames]``. With it, the batch is cut along time into slices,
    and a minibatch is ``[minibatch_frames / sequence_length, sequence_length]``; the first step of each slice holds
    its stored hidden state. All minibatches have the same shape: frames left over are dropped, different ones in each
    pass. The minibatches of a pass are views of one shuffled copy of the batch.

    TorchRL's ``ReplayBuffer`` has the same ``extend`` and iteration and can be used instead; it copies every entry once
    more and does not cut sequences. This buffer keeps nothing from one batch to the next, and so has no state to save.

    Args:
        minibatch_frames: frames per minibatch.
        sequence_length: steps per slice; ``None`` for single steps.
        keys: the entries that minibatches get, if the batch has them; ``None`` for all. Entries that no loss reads are
            then not copied.

    Raises:
        UserError: for sizes that are not positive, or that do not divide each other as described.

    >>> import torch
    >>> from tensordict import TensorDict
    >>> from ctde_kit.data import OnPolicyBuffer
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
        """Replace the stored batch by a new one ``[n_envs, T]``."""
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
                "collects per batch"
            )
        self._items = batch.reshape(n_envs * length // self.sequence_length, self.sequence_length)

    def whole(self) -> TensorDictBase:
        """The stored batch in the form of one minibatch, in the order of its envs and steps."""
        if self._items is None:
            raise UserError("the buffer is empty: call extend(batch) first")
        return self._items

    def __iter__(self) -> Iterator[TensorDictBase]:
        items = self.whole()
        size = self.minibatch_frames // (self.sequence_length or 1)
        order = torch.randperm(len(items), device=items.device)
        rows = order[: len(order) // size * size]
        # One gather per entry and pass, of which the minibatches are views; index_select is faster than indexing.
        shuffled = items.apply(lambda part: part.index_select(0, rows), batch_size=[len(rows), *items.batch_size[1:]])
        assert shuffled is not None
        yield from shuffled.split(size)
