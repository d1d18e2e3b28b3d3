"""Target networks that follow the online ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from ctde_kit.training.parts import Metrics


class TargetRule(Protocol):
    """Moves target networks after an update."""

    def __call__(self) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        """What the rule counts; the networks' weights are their loss's state."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        """Take it over."""
        ...


class PolyakUpdate:
    """After updates every target weight moves the share ``tau`` towards the online one (Lillicrap et al. 2016).

    TorchRL's ``SoftUpdate`` needs functional parameters; this takes plain modules and moves all weights at once.

    Args:
        online: the networks that learn.
        delayed: their targets, of the same structure.
        tau: a ratio in (0, 1].
        every: in updates, 1 for after each one.

    >>> online, delayed = nn.Linear(1, 1), nn.Linear(1, 1)
    >>> _ = [nn.init.ones_(p) for p in online.parameters()], [nn.init.zeros_(p) for p in delayed.parameters()]
    >>> PolyakUpdate(online, delayed, tau=0.25)()
    >>> delayed.weight.item()
    0.25
    """

    def __init__(self, online: nn.Module, delayed: nn.Module, tau: float, every: int = 1):
        self.online, self.delayed = _floats(online), _floats(delayed)
        self.tau, self.every, self.updates = tau, every, 0

    @torch.no_grad()
    def __call__(self) -> None:
        self.updates += 1
        if self.updates % self.every == 0:
            torch._foreach_lerp_(self.delayed, self.online, self.tau)  # pyright: ignore[reportPrivateImportUsage]

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Checkpoints from before there was a choice hold nothing, and moved after each update.
        self.updates = state_dict.get("updates", 0)


class HardUpdate:
    """Every ``every`` updates the targets become copies of the online networks (Mnih et al. 2015).

    Args:
        online: the networks that learn.
        delayed: their targets, of the same structure.
        every: in updates.
    """

    def __init__(self, online: nn.Module, delayed: nn.Module, every: int):
        self.online, self.delayed = _floats(online), _floats(delayed)
        self.every, self.updates = every, 0

    @torch.no_grad()
    def __call__(self) -> None:
        self.updates += 1
        if self.updates % self.every == 0:
            torch._foreach_copy_(self.delayed, self.online)  # pyright: ignore[reportPrivateImportUsage]

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.updates = state_dict["updates"]


class UpdateWithTargets:
    """An update, after which the targets follow.

    Args:
        update: minibatch -> metrics, such as ``GradientStep``.
        rules: what comes after an update, in this order: a rule for each loss that has targets, and before them what
            changes the online networks once more, such as ``ParameterAverage``.
    """

    def __init__(self, update: Any, rules: Mapping[str, TargetRule]):
        self.update, self.rules = update, dict(rules)

    @property
    def losses(self) -> nn.ModuleDict:
        return self.update.losses

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        return self.update.optimizer

    def __call__(self, minibatch: TensorDictBase) -> Metrics:
        metrics: Metrics = self.update(minibatch)
        for rule in self.rules.values():
            rule()
        return metrics

    def state_dict(self) -> dict[str, Any]:
        return {
            "update": self.update.state_dict(),
            "rules": {name: rule.state_dict() for name, rule in self.rules.items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.update.load_state_dict(state_dict["update"])
        for name, rule in self.rules.items():
            rule.load_state_dict(state_dict["rules"][name])


def _floats(module: nn.Module) -> list[Tensor]:
    return [tensor for tensor in [*module.parameters(), *module.buffers()] if tensor.is_floating_point()]
