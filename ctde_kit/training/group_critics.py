"""The critics of one group as something that another learner of the same kind can take over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ctde_kit.errors import UserError
from ctde_kit.protocols import HoldsCritics, HoldsLosses
from ctde_kit.training.gradient_step import HoldsGradientSteps

Moments = Literal["keep", "reset", "copy"]


@dataclass(frozen=True)
class CriticState:
    """What a group's critics are at one moment.

    Args:
        networks: parameters and buffers by name: of critics, target critics, mixer and statistics.
        moments: what the optimizer remembers of each parameter, by the parameter's name; empty where it was not asked.
    """

    networks: dict[str, Tensor]
    moments: dict[str, dict[str, Tensor]]


class GroupCritics:
    """The critics of one group: online and target networks, and what an optimizer remembers of them.

    Everything is written in place, so that compiled graphs and optimizers, which hold the tensors, see it.

    Args:
        modules: the group's critics, their target networks, and whatever else belongs to them.
        optimizers: of their parameters, and perhaps of others.

    >>> import torch
    >>> from ctde_kit.recipes import MADDPGConfig, VmasTask
    >>> from ctde_kit.training import group_critics
    >>> task = VmasTask("vmas/navigation", n_envs=2)
    >>> ours, theirs = (group_critics(MADDPGConfig(task=task, seed=seed).build().update)["agents"] for seed in (0, 1))
    >>> sorted({name.split(".")[0] for name in ours.state().networks})
    ['critic', 'target_critic']
    >>> ours.take(theirs.state(), moments="keep")
    >>> all(torch.equal(value, theirs.state().networks[name]) for name, value in ours.state().networks.items())
    True
    """

    def __init__(self, modules: nn.ModuleDict, optimizers: list[torch.optim.Optimizer]) -> None:
        self.modules, self._optimizers = modules, optimizers

    def state(self, *, moments: bool = False) -> CriticState:
        """A copy of what they are now.

        Args:
            moments: with what the optimizer remembers of them.
        """
        networks = {name: value.detach().clone() for name, value in self.modules.state_dict().items()}
        remembered = {name: {kind: value.clone() for kind, value in of.items()} for name, of in self._moments()}
        return CriticState(networks, remembered if moments else {})

    @torch.no_grad()
    def take(self, state: CriticState, moments: Moments) -> None:
        """Become what another learner's critics were.

        Args:
            state: of that learner, of the same configuration.
            moments: what the optimizer remembers: ``keep`` its own, as if nothing had happened, ``reset`` it to that of
                a new optimizer, or ``copy`` that of the other learner, which ``state`` must hold.
        """
        self.modules.load_state_dict(state.networks)
        if moments == "keep":
            return
        for name, remembered in self._moments():
            theirs = state.moments.get(name, {}) if moments == "copy" else {}
            for kind, value in remembered.items():
                # A new optimizer of Adam's family has zeros, the count of its steps included.
                value.copy_(theirs[kind]) if kind in theirs else value.zero_()

    def _moments(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Of each parameter that a step has moved, the tensors that its optimizer keeps."""
        for name, parameter in self.modules.named_parameters():
            for optimizer in self._optimizers:
                if parameter in optimizer.state:
                    kept = optimizer.state[parameter].items()
                    yield name, {kind: value for kind, value in kept if isinstance(value, Tensor)}


def group_critics(update: object) -> dict[str, GroupCritics]:
    """The critics that an update trains, by group.

    Args:
        update: such as ``parts.update`` of a recipe.

    Raises:
        UserError: where it has none, as Q-learning has none.

    >>> from ctde_kit.recipes import MAPPOConfig, VmasTask
    >>> from ctde_kit.training import group_critics
    >>> list(group_critics(MAPPOConfig(task=VmasTask("vmas/navigation", n_envs=2)).build().update))
    ['agents']
    """
    losses = update.losses.modules() if isinstance(update, HoldsLosses) else []
    optimizers = [step.optimizer for step in update.gradient_steps] if isinstance(update, HoldsGradientSteps) else []
    found = {
        group: GroupCritics(modules, optimizers)
        for loss in losses
        if isinstance(loss, HoldsCritics)
        for group, modules in loss.critics_by_group().items()
    }
    if not found:
        raise UserError(f"{type(update).__name__}: expected losses with critics, such as MADDPGLoss, found none")
    return found
