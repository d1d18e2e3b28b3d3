"""A loss of deterministic actors and critics of actions under examination."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ctde_kit.testing.comparing import difference, moved
from ctde_kit.testing.findings import NotApplicable
from ctde_kit.testing.loss_case import LossCase

OtherActions = Literal["replay", "current"]


@runtime_checkable
class HoldsActorAndValue(Protocol):
    """A loss that holds one actor and one critic, such as TorchRL's ``DDPGLoss``."""

    actor_network: Any
    value_network: Any


@runtime_checkable
class HoldsGroups(Protocol):
    """A loss that holds an actor and a critic per group, such as ``MADDPGLoss``."""

    actors: Any
    critics: Any


@dataclass
class DeterministicCase(LossCase):
    """What the rules of deterministic losses are held against; see ``LossCase``.

    Args:
        other_actions: what the others do in an agent's actor loss: ``replay``, ``current``, or ``None`` for unknown.
    """

    other_actions: OtherActions | None = None

    @property
    def n_agents(self) -> int:
        """How many agents the group has; skips a rule for one alone."""
        return self.names.several_agents(self.batch)

    def actor_modules(self) -> list[nn.Module]:
        """The group's actor."""
        return self._modules(self.actor, "actor_network", "actors", "actor")

    def critic_modules(self) -> list[nn.Module]:
        """The group's critic."""
        return self._modules(self.critic, "value_network", "critics", "critic")

    def _modules(self, given: Any, single: str, by_group: str, name: str) -> list[nn.Module]:
        if isinstance(given, nn.Module):
            return [given]
        if isinstance(self.loss, HoldsGroups):
            return [getattr(self.loss, by_group)[self.names.group]]
        if isinstance(self.loss, HoldsActorAndValue):
            return [getattr(self.loss, single)]
        raise NotApplicable(f"the {name} is not known; give {name}=, a module")

    def moves_with(self, tensors: Iterable[Tensor], losses: Sequence[str]) -> float:
        """How far these losses move with other weights, which are put back; what is rounding is 0."""
        base, chosen = self.running(self.batch), list(tensors)
        kept = [value.detach().clone() for value in chosen]
        with torch.no_grad():
            before = self.total(base, losses)
            try:
                for value in chosen:
                    value.copy_(moved(value))
                gap = difference(before, self.total(base, losses))
            finally:
                for value, old in zip(chosen, kept, strict=True):
                    value.copy_(old)
        return gap if gap > 1e-6 * (1 + before.abs().item()) else 0.0
