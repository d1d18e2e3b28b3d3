"""The protocol of envs that step outside of torch, around which policy and transforms can be compiled."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from tensordict import TensorDictBase
from torch import Tensor

from ctde_kit.capability import Capability
from ctde_kit.keys import Key


@dataclass(frozen=True)
class Outcome:
    """What a step of every env gave, with a reset of those whose episodes ended in it.

    Args:
        now: what the step wrote, or where the episode ended what the reset wrote; entries as of ``_step``.
        last: where the episode ended, what its last step wrote; elsewhere it says nothing. Entries as of ``now``.
        ended: where the episode ended, bool ``[n_envs, 1]``.
    """

    now: TensorDictBase
    last: TensorDictBase
    ended: Tensor


@runtime_checkable
class ExternalEnv(Capability, Protocol):
    """An env that steps outside of torch, such as in worker processes, and alone says when its episodes end."""

    @property
    def outcome(self) -> Outcome:
        """What the last step gave: the same tensors at every call, which the next step overwrites."""
        ...

    def begin_step(self, actions: Mapping[Key, Tensor], /) -> None:
        """Begin a step of every env, and a reset where an episode ends in it; this process goes on meanwhile."""
        ...

    def finish_step(self) -> None:
        """Wait until ``outcome`` holds what the step gave."""
        ...

    def obey_masks(self) -> None:
        """From now on random actions obey the masks in ``outcome``, as after ``EnvBase.step``."""
        ...

    def answering(self, step: TensorDictBase, reset: TensorDictBase, /) -> AbstractContextManager[list[TensorDictBase]]:
        """Inside the block nothing runs: ``_step`` gives ``step`` and ``_reset`` gives ``reset``.

        The list gets what each ``_step`` was given.
        """
        ...


@runtime_checkable
class SaysStateless(Capability, Protocol):
    """A transform that says whether what it writes depends on what it reads alone."""

    @property
    def stateless(self) -> bool:
        """False where it keeps something from one call to the next; it also ends no episodes where it is True."""
        ...
