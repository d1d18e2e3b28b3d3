"""Experience replay: uniform or prioritized, of transitions, sequences or episodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torchrl.data import LazyMemmapStorage, TensorDictReplayBuffer
from torchrl.data.replay_buffers import RandomSampler

from ctde_kit.data.priority import Prioritized, PrioritySampler
from ctde_kit.data.storage import StoredOn, check_disk, make_storage, reserve_disk, without_notes
from ctde_kit.data.tensordict_state import from_state, to_state
from ctde_kit.errors import UserError
from ctde_kit.keys import TD_ERROR

SAMPLES_AT_ONCE = 25


class Form(Protocol):
    """What the items are: ``Transitions``, ``Sequences`` or ``Episodes``."""

    @property
    def frames_per_item(self) -> int:
        """Steps an item takes."""
        ...

    def cut(self, batch: TensorDictBase, /) -> TensorDictBase | None:
        """A batch ``[n_envs, T]`` into the items that it completes."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What is carried to the next batch."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        """Take it over."""
        ...


class Replay:
    """Keeps the latest ``capacity`` frames and gives random items of them, over many iterations.

    Underneath are TorchRL's ``TensorDictReplayBuffer`` and storages, and its ``RandomSampler`` or the kit's
    ``PrioritySampler``. What it adds is how a batch ``[n_envs, T]`` becomes items (``form``), and a state that is
    whole. TorchRL's ``SliceSampler`` is not used: it searches the whole storage for ends of episodes after every new
    batch, never crosses one, and drops what is shorter than a slice; sequences are cut when they are stored instead, so
    that their shapes are fixed.

    A priority belongs to an item (a time step, a sequence of them, or an episode), never to an agent: the loss writes
    ``td_error``, and ``update_priority`` gives it back. Samples hold ``index`` and, where prioritized,
    ``priority_weight``. New items get the highest priority so far.

    ``state_dict`` copies what is filled, from a disk into memory too: a checkpoint keeps its items whatever is
    overwritten later, and costs their size in memory while it is written and on the disk.

    Args:
        form: how a batch is cut into items.
        capacity: frames kept, the padding of episodes included.
        batch_size: items a sample.
        keys: entries that are stored, such as ``QMixLoss.stored_keys``; ``None`` for all.
        prioritized: sample by priority; ``None`` for uniformly.
        stored_on: main memory (``cpu``), the training ``device``, or memory-mapped files on ``disk``.
        device: where samples are wanted.
        directory: of the files; ``None`` for a temporary one.

    Raises:
        UserError: for an item longer than the capacity, a sample before any item is whole, a disk that is full.

    >>> from tensordict import TensorDict
    >>> from ctde_kit.data import Transitions
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
                f"replay.capacity={capacity} frames, replay.batch_size={batch_size}: expected room for an item of "
                f"{form.frames_per_item} frames, and at least 1 item a sample"
            )
        self.form, self.batch_size, self.device = form, batch_size, torch.device(device)
        self.keys = None if keys is None else list(keys)
        self.frames = 0
        self.directory = directory
        storage = make_storage(n_items, stored_on, device, directory)
        on = storage.device or self.device
        self._buffer = TensorDictReplayBuffer(
            storage=storage,
            sampler=RandomSampler() if prioritized is None else PrioritySampler(n_items, prioritized, on),
        )

    def __len__(self) -> int:
        """How many items are stored."""
        return len(self._buffer)

    def extend(self, batch: TensorDictBase) -> None:
        """Store a batch ``[n_envs, T]``; ``frames`` counts all that ever came."""
        self.frames += batch.numel()
        if self.keys is not None:
            batch = batch.select(*self.keys, strict=False)
        items = self.form.cut(batch)
        if items is not None:
            self._store(items)

    def _store(self, items: TensorDictBase) -> None:
        storage: Any = self._buffer.storage
        first = not storage.initialized
        if first and isinstance(storage, LazyMemmapStorage):
            check_disk(storage.max_size, items[0], self.directory)
        # More than fits would overwrite itself, in no order that is promised.
        with without_notes():
            self._buffer.extend(items[-storage.max_size :])
        if first and isinstance(storage, LazyMemmapStorage):
            reserve_disk(storage)

    def sample(self) -> TensorDictBase:
        """``[batch_size]`` transitions, or ``[batch_size, T]`` sequences or episodes."""
        return self._sample(self.batch_size)

    def samples(self, count: int) -> Iterator[TensorDictBase]:
        """``count`` samples: uniform ones are gathered many at once, which takes a fraction of the time.

        A prioritized one is drawn when it is asked for, after ``update_priority`` of the one before.
        """
        at_once = 1 if isinstance(self._buffer.sampler, PrioritySampler) else SAMPLES_AT_ONCE
        while count > 0:
            taken = min(count, at_once)
            items: Any = self._sample(taken * self.batch_size)
            yield from items.unflatten(0, (taken, self.batch_size)).unbind(0)
            count -= taken

    def _sample(self, n_items: int) -> TensorDictBase:
        if len(self) == 0:
            raise UserError(
                f"replay: after {self.frames} frames no item of {self.form.frames_per_item} steps is whole; make it "
                "shorter, or raise learning_starts"
            )
        return self._buffer.sample(n_items).to(self.device)

    def update_priority(self, sampled: TensorDictBase) -> None:
        """Take over the ``td_error`` that a loss wrote into a sample; without priorities this does nothing."""
        sampler = self._buffer.sampler
        if isinstance(sampler, PrioritySampler):
            index, error = (sampled.get(key).reshape(len(sampled), -1)[:, 0] for key in ("index", TD_ERROR))
            sampler.update_priority(index, error)

    def state_dict(self) -> dict[str, Any]:
        storage: Any = self._buffer.storage
        stored = storage.get(slice(0, len(self))) if len(self) else None
        return {
            "frames": self.frames,
            "form": self.form.state_dict(),
            "items": to_state(stored),
            "writer": self._buffer.writer.state_dict(),
            "sampler": self._buffer.sampler.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.frames = state_dict["frames"]
        self.form.load_state_dict(state_dict["form"])
        self._buffer.empty()
        items = from_state(state_dict["items"])
        if items is not None:
            self._store(items)
        self._buffer.writer.load_state_dict(state_dict["writer"])
        self._buffer.sampler.load_state_dict(state_dict["sampler"])
