"""Protocols of what the training loop uses: collectors, buffers, updates and target rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

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


@runtime_checkable
class JoinsParts(Capability, Protocol):
    """A collector that works together with the parts of a run, such as that of several learners."""

    def join(self, parts: Any, /) -> None:
        """Called with the parts, ``training.Parts``, before the first batch of a loop over them."""
        ...

    def learning(self) -> AbstractContextManager[None]:
        """Inside the block the parts learn from a batch."""
        ...


class ExperienceBuffer(Protocol):
    """What a training loop needs of a buffer; the update schedule states what it needs beyond this to draw samples."""

    def extend(self, batch: TensorDictBase, /) -> object:
        """Store a batch ``[n_envs, T]``."""
        ...


class HoldsItems(ExperienceBuffer, Protocol):
    """A buffer of one batch, which shows it and goes over parts of it in minibatches, such as ``OnPolicyBuffer``."""

    def __iter__(self) -> Iterator[TensorDictBase]:
        """One pass over the batch in minibatches."""
        ...

    @property
    def items(self) -> TensorDictBase:
        """What it splits into minibatches."""
        ...

    def of(self, items: TensorDictBase, /) -> Iterable[TensorDictBase]:
        """A buffer of these items, with minibatches of the same size."""
        ...


class Learner(Protocol):
    """A module that learns from a part of a batch's entries, such as one agent of a ``HAPPOLoss``."""

    def select(self, batch: TensorDictBase, /) -> TensorDictBase:
        """What it reads of a batch of all agents."""
        ...


class SequentialLoss(Protocol):
    """A loss of a group whose agents learn one after the other, such as ``HAPPOLoss``."""

    @property
    def n_agents(self) -> int:
        """How many agents there are."""
        ...

    def for_agent(self, agent: int, /) -> Learner:
        """The loss of one agent, a module with the agent's own parameters."""
        ...

    def for_critic(self) -> Learner:
        """The loss of the critic, likewise."""
        ...

    def begin(self, batch: TensorDictBase, /) -> TensorDictBase:
        """Write what agents read of those before them, where there is none before."""
        ...

    def pass_on(self, batch: TensorDictBase, agent: int, later: Sequence[int], /) -> None:
        """Write what the agents ``later`` read of this one, which has just learned."""
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


@runtime_checkable
class HoldsCritics(Capability, Protocol):
    """A loss that shows what judges each group's actions, such as ``MADDPGLoss``."""

    def critics_by_group(self) -> Mapping[str, nn.ModuleDict]:
        """By group its critics, their targets, a mixer, and statistics of what they learn; nothing of actors."""
        ...
