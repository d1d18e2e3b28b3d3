"""Experience replay of transitions, sequences or episodes, sampled uniformly or by priority."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torchrl.data import LazyMemmapStorage, TensorDictReplayBuffer
from torchrl.data.replay_buffers import RandomSampler

from ctde_kit.data.priority import Prioritized, PrioritySampler
from ctde_kit.data.storage import StoredOn, check_disk, make_storage, quiet_torchrl, reserve_disk
from ctde_kit.data.tensordict_state import from_state, to_state
from ctde_kit.errors import UserError
from ctde_kit.keys import TD_ERROR
from ctde_kit.protocols import StateDict, Stateful

# Uniform samples that are gathered in one operation.
SAMPLES_AT_ONCE = 25


class Form(Stateful, Protocol):
    """How a replay cuts batches into items: ``Transitions``, ``Sequences`` or ``Episodes``.

    Its state is the steps that wait for the next batch to complete an item.
    """

    @property
    def frames_per_item(self) -> int:
        """Steps per stored item."""
        ...

    def cut(self, batch: TensorDictBase, /) -> TensorDictBase | None:
        """The items that a batch ``[n_envs, T]`` completes; ``None`` if there are none."""
        ...


class Replay:
    """Stores the latest ``capacity`` frames, and returns random samples of them.

    It is built from TorchRL's ``TensorDictReplayBuffer``, storages and ``RandomSampler``, or the kit's
    ``PrioritySampler``. It adds the cutting of batches ``[n_envs, T]`` into items (``form``), and a ``state_dict`` that
    holds everything. Sequences are cut when they are stored, so that their shapes are fixed. TorchRL's ``SliceSampler``
    would search the whole storage for ends of episodes after every new batch, give no slice that crosses one, and never
    sample an episode that is shorter than a slice.

    There is one priority per item (a time step, a sequence or an episode), not one per agent. The loss writes
    ``td_error`` into a sample, and ``update_priority`` takes it from there. Samples hold ``index`` and, if prioritized,
    ``priority_weight``.

    ``state_dict`` copies all stored items, also those on a disk, into memory. A checkpoint therefore does not change
    when items are overwritten later, but costs the items' size in memory while it is written, and on the disk. The
    files of items on a disk are deleted when the program ends.

    Args:
        form: how batches are cut into items.
        capacity: frames that are kept, including the padding of episodes.
        batch_size: items per sample.
        keys: entries that are stored, such as ``QMixLoss.stored_keys``; ``None`` for all.
        prioritized: exponents of prioritized sampling; ``None`` samples uniformly.
        stored_on: main memory (``cpu``), the training ``device``, or memory-mapped files on ``disk``.
        device: the device of the samples.
        directory: where each replay makes a directory of its own for memory-mapped files; ``None`` for the system's
            temporary directory.

    Raises:
        UserError: if an item is longer than the capacity, a sample is asked for before there are items, or the disk is
            full.

    >>> import torch
    >>> from tensordict import TensorDict
    >>> from ctde_kit.data import Replay, Transitions
    >>> replay = Replay(Transitions(), capacity=100, batch_size=5)
    >>> replay.extend(TensorDict({"t": torch.arange(12).reshape(2, 6)}, [2, 6]))
    >>> replay.sample().shape, replay.frames
    (torch.Size([5]), 12)
    """

    def __init__(
        self,
        form: Form,
        *,
        capacity: int,
        batch_size: int,
        keys: Sequence[NestedKey] | None = None,
        prioritized: Prioritized | None = None,
        stored_on: StoredOn = "cpu",
        device: torch.device | str = "cpu",
        directory: str | None = None,
    ):
        n_items = capacity // form.frames_per_item
        if n_items < 1 or batch_size < 1:
            raise UserError(
                f"Replay: capacity={capacity} frames, batch_size={batch_size}: expected room for an item of "
                f"{form.frames_per_item} frames, and at least 1 item per sample"
            )
        self.form, self.batch_size, self.device = form, batch_size, torch.device(device)
        self.keys = None if keys is None else list(keys)
        self.frames = 0
        self.directory = directory
        self._storage = make_storage(n_items, stored_on, device, directory)
        on = self._storage.device or self.device
        self._buffer = TensorDictReplayBuffer(
            storage=self._storage,
            sampler=RandomSampler() if prioritized is None else PrioritySampler(n_items, prioritized, on),
        )

    def __len__(self) -> int:
        """The number of stored items."""
        return len(self._buffer)

    def extend(self, batch: TensorDictBase) -> None:
        """Store a batch ``[n_envs, T]``; ``frames`` counts all frames so far, including those overwritten since."""
        self.frames += batch.numel()
        if self.keys is not None:
            batch = batch.select(*self.keys, strict=False)
        items = self.form.cut(batch)
        if items is not None:
            self._store(items)

    def _store(self, items: TensorDictBase) -> None:
        storage = self._storage
        first = not storage.initialized
        if first and isinstance(storage, LazyMemmapStorage):
            check_disk(storage.max_size, items[0], self.directory)
        # Items beyond the capacity would overwrite each other in an order that TorchRL does not promise.
        with quiet_torchrl():
            self._buffer.extend(items[-storage.max_size :])
        if first and isinstance(storage, LazyMemmapStorage):
            reserve_disk(storage)

    def sample(self) -> TensorDictBase:
        """``[batch_size]`` transitions, or ``[batch_size, T]`` sequences or episodes."""
        return self._sample(self.batch_size)

    def samples(self, count: int) -> Iterator[TensorDictBase]:
        """``count`` samples, one after the other.

        Uniform samples are gathered many at once, which takes a fraction of the time. A prioritized sample is drawn
        only when it is asked for, after ``update_priority`` of the one before.
        """
        at_once = 1 if isinstance(self._buffer.sampler, PrioritySampler) else SAMPLES_AT_ONCE
        while count > 0:
            n_samples = min(count, at_once)
            items = self._sample(n_samples * self.batch_size).unflatten(0, (n_samples, self.batch_size))
            assert items is not None
            yield from items.unbind(0)
            count -= n_samples

    def _sample(self, n_items: int) -> TensorDictBase:
        if len(self) == 0:
            raise UserError(
                f"Replay: after {self.frames} frames no item of {self.form.frames_per_item} steps is whole; make the "
                f"items of {self.form!r} shorter, or collect more first (learning_starts)"
            )
        return self._buffer.sample(n_items).to(self.device)

    def update_priority(self, sampled: TensorDictBase) -> None:
        """Make the ``td_error`` that a loss wrote the priority of each item; does nothing without priorities."""
        sampler = self._buffer.sampler
        if isinstance(sampler, PrioritySampler):
            index, error = (sampled.get(key).reshape(len(sampled), -1)[:, 0] for key in ("index", TD_ERROR))
            sampler.update_priority(index, error)

    def state_dict(self) -> StateDict:
        """Copies of all stored items, and the states of form, writer and sampler."""
        stored = self._storage.get(slice(0, len(self))) if len(self) else None
        return {
            "frames": self.frames,
            "form": self.form.state_dict(),
            "items": to_state(stored),
            "writer": self._buffer.writer.state_dict(),
            "sampler": self._buffer.sampler.state_dict(),
        }

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Restore what ``state_dict`` returned."""
        self.frames = state_dict["frames"]
        self.form.load_state_dict(state_dict["form"])
        self._buffer.empty()
        items = from_state(state_dict["items"])
        if items is not None:
            self._store(items)
        self._buffer.writer.load_state_dict(state_dict["writer"])
        self._buffer.sampler.load_state_dict(state_dict["sampler"])
