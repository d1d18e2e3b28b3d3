"""A loss under examination that has actors and critics of actions, as the families of MADDPG and SAC have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ctde_kit.testing.comparing import difference, moved
from ctde_kit.testing.findings import NotApplicable
from ctde_kit.testing.loss_case import LossCase, Parameters

OtherActions = Literal["replay", "current"]


@runtime_checkable
class HoldsActorAndValue(Protocol):
    """A loss that holds one actor and one critic, such as TorchRL's ``DDPGLoss``."""

    actor_network: nn.Module
    value_network: nn.Module


@runtime_checkable
class HoldsGroups(Protocol):
    """A loss that holds an actor and a critic per group, such as ``MADDPGLoss``."""

    actors: Mapping[str | None, nn.Module]
    critics: Mapping[str | None, nn.Module]


@runtime_checkable
class HoldsTwinCritics(Protocol):
    """A loss whose actors may learn from the smaller of two critics' values, such as ``MASACLoss``."""

    twin_critics: Mapping[str | None, nn.Module] | None


@dataclass
class DeterministicCase(LossCase):
    """What the rules of deterministic losses check; see ``LossCase``.

    Args:
        other_actions: what the others do in an agent's actor loss: ``replay``, ``current``, or ``None`` for unknown.
    """

    other_actions: OtherActions | None = None

    @property
    def n_agents(self) -> int:
        """How many agents the group has; a single agent skips the rule."""
        return self.names.several_agents(self.batch)

    def actor_modules(self) -> list[nn.Module]:
        """The group's actor."""
        if isinstance(self.loss, HoldsGroups):
            return [self._given_or_held("actor", self.actor, self.loss.actors[self.names.group])]
        held = self.loss.actor_network if isinstance(self.loss, HoldsActorAndValue) else None
        return [self._given_or_held("actor", self.actor, held)]

    def critic_modules(self) -> list[nn.Module]:
        """The group's critic, and its second one."""
        twins = self.loss.twin_critics if isinstance(self.loss, HoldsTwinCritics) else None
        if isinstance(self.loss, HoldsGroups):
            first = self._given_or_held("critic", self.critic, self.loss.critics[self.names.group])
            return [first] if twins is None else [first, twins[self.names.group]]
        held = self.loss.value_network if isinstance(self.loss, HoldsActorAndValue) else None
        return [self._given_or_held("critic", self.critic, held)]

    @staticmethod
    def _given_or_held(name: str, given: Parameters, held: nn.Module | None) -> nn.Module:
        """The module that the caller gave, else the one that the loss holds; without any the rule is skipped."""
        if isinstance(given, nn.Module):
            return given
        if held is None:
            raise NotApplicable(f"the {name} is not known; give {name}=, a module")
        return held

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
