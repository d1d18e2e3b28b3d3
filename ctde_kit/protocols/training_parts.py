"""Protocols of what the training loop uses: collectors, buffers, updates and target rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from tensordict import TensorDictBase
from torch import nn

from ctde_kit.capability import Capability
from ctde_kit.protocols.saved_state import Stateful

if TYPE_CHECKING:
    from torchrl.envs import EnvBase


class TargetRule(Stateful, Protocol):
    """Called after each gradient step: moves target networks, or changes the online networks once more.

    Its state is its count of gradient steps; the networks' weights are saved with the loss that owns them.
    """

    def __call__(self) -> None:
        """Count one more gradient step, and act if it is time."""
        ...


class ExperienceCollector(Stateful, Protocol):
    """What the training loop and the recipes need of a collector."""

    @property
    def env(self) -> EnvBase:
        """The env that it steps, with its transforms."""
        ...

    @property
    def frames(self) -> int:
        """Env transitions collected so far."""
        ...

    def __iter__(self) -> Iterator[TensorDictBase]:
        """Fresh batches ``[n_envs, T]``, until all frames are collected."""
        ...

    def update_policy_weights_(self) -> None:
        """Act with the current weights from the next batch on."""
        ...

    def shutdown(self) -> None:
        """Release the env."""
        ...


class ExperienceBuffer(Protocol):
    """What a training loop needs of a buffer; the update schedule states what it needs beyond this to draw samples."""

    def extend(self, batch: TensorDictBase, /) -> object:
        """Store a batch ``[n_envs, T]``."""
        ...


class ReplayBuffer(ExperienceBuffer, Protocol):
    """A buffer of past experience from which any number of samples can be drawn."""

    @property
    def frames(self) -> int:
        """Env transitions stored so far, including those overwritten since."""
        ...

    def samples(self, count: int, /) -> Iterator[TensorDictBase]:
        """``count`` random samples, one after the other."""
        ...

    def update_priority(self, sampled: TensorDictBase, /) -> None:
        """Make the ``td_error`` that a loss wrote the priority of each item; does nothing without priorities."""
        ...


@runtime_checkable
class HoldsLosses(Capability, Protocol):
    """An update that shows the losses which it minimizes, such as ``GradientStep``."""

    @property
    def losses(self) -> nn.Module:
        """All losses, with the networks that they train."""
        ...
