"""Protocols of running statistics: the units of returns, rewards and observations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor

from ctde_kit.capability import Capability
from ctde_kit.protocols.saved_state import Stateful


class ReturnScale(Protocol):
    """The units in which a critic learns returns; a module, so that its statistics are saved with its owner."""

    def update(self, returns: Tensor, mask: Tensor | None = None, /) -> None:
        """Take in the returns where ``mask``, bool and of the same shape, is true."""
        ...

    def normalize(self, returns: Tensor, /) -> Tensor:
        """Returns in units of the critic's outputs."""
        ...

    def denormalize(self, values: Tensor, /) -> Tensor:
        """The critic's outputs in units of returns."""
        ...


class RewardScale(Protocol):
    """The units in which losses read rewards, such as ``RewardNorm``; a module, saved with the loss that holds it."""

    def normalize(self, tensordict: TensorDictBase, /, *, read: Iterable[NestedKey]) -> TensorDictBase:
        """A shallow copy with rewards in these units; ``UserError`` if a key in ``read`` is not among them."""
        ...


class ObservationStatistics(Stateful, Protocol):
    """Running statistics of observations, such as ``ObservationNorm``."""

    def update(self, batch: TensorDictBase, /) -> None:
        """Take in a batch ``[n_envs, T]`` that has been learned from."""
        ...


@runtime_checkable
class SharedWithTargets(Capability, Protocol):
    """A module of an online network that its target network shares, such as running statistics of what both read."""

    @property
    def shared_with_targets(self) -> bool:
        """Whether a target network uses this very module instead of a copy of it."""
        ...
