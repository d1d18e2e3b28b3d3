"""Updates of target networks: Polyak averaging and hard copies, made after gradient steps."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from ctde_kit.protocols import StateDict, TargetRule
from ctde_kit.training.gradient_step import GradientStep
from ctde_kit.training.parts import Metrics


class PolyakUpdate:
    """Moves every target weight by the fraction ``tau`` toward the online weight (Lillicrap et al. 2016, algorithm 1).

    TorchRL's ``SoftUpdate`` takes a whole loss; this one takes any two modules of the same structure, and moves all
    weights in one fused operation.

    Args:
        online: the networks that are trained.
        target_networks: networks of the same structure that follow them.
        tau: fraction in (0, 1].
        every: number of gradient steps between moves; 1 moves after each step.

    >>> from torch import nn
    >>> from ctde_kit.training import PolyakUpdate
    >>> online, target = nn.Linear(1, 1), nn.Linear(1, 1)
    >>> _ = [nn.init.ones_(p) for p in online.parameters()], [nn.init.zeros_(p) for p in target.parameters()]
    >>> PolyakUpdate(online, target, tau=0.25)()
    >>> target.weight.item()
    0.25
    """

    def __init__(self, online: nn.Module, target_networks: nn.Module, tau: float, every: int = 1):
        self.online, self.target_networks = _float_pairs(online, target_networks)
        self.tau, self.every, self.updates = tau, every, 0

    @torch.no_grad()
    def __call__(self) -> None:
        self.updates += 1
        if self.updates % self.every == 0:
            torch._foreach_lerp_(self.target_networks, self.online, self.tau)  # pyright: ignore[reportPrivateImportUsage]  # torch has no public one

    def state_dict(self) -> StateDict:
        """The number of gradient steps so far."""
        return {"updates": self.updates}

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Restore what ``state_dict`` returned."""
        self.updates = state_dict["updates"]


class HardUpdate:
    """Copies the online networks into the target networks every ``every`` gradient steps (Mnih et al. 2015).

    TorchRL's ``HardUpdate`` takes a whole loss; this one takes any two modules of the same structure, and copies all
    weights in one fused operation.

    Args:
        online: the networks that are trained.
        target_networks: networks of the same structure that become their copies.
        every: number of gradient steps between copies.

    >>> import torch
    >>> from ctde_kit.training import HardUpdate
    >>> online, target = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    >>> update = HardUpdate(online, target, every=2)
    >>> update()
    >>> torch.equal(online.weight, target.weight)
    False
    >>> update()
    >>> torch.equal(online.weight, target.weight)
    True
    """

    def __init__(self, online: nn.Module, target_networks: nn.Module, every: int):
        self.online, self.target_networks = _float_pairs(online, target_networks)
        self.every, self.updates = every, 0

    @torch.no_grad()
    def __call__(self) -> None:
        self.updates += 1
        if self.updates % self.every == 0:
            torch._foreach_copy_(self.target_networks, self.online)  # pyright: ignore[reportPrivateImportUsage]  # torch has no public one

    def state_dict(self) -> StateDict:
        """The number of gradient steps so far."""
        return {"updates": self.updates}

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Restore what ``state_dict`` returned."""
        self.updates = state_dict["updates"]


class UpdateWithTargets:
    """A gradient step followed by the updates of target networks.

    Args:
        update: the gradient step.
        rules: called after it, in this order: one rule for each loss that has target networks. A rule that changes the
            online networks once more, such as ``ParameterAverage``, stands before them.

    >>> from ctde_kit.recipes import MatrixTask, QMIXConfig
    >>> parts = QMIXConfig(task=MatrixTask(n_envs=2)).build()
    >>> type(parts.update).__name__, {name: type(rule).__name__ for name, rule in parts.update.rules.items()}
    ('UpdateWithTargets', {'team': 'PolyakUpdate'})
    """

    def __init__(self, update: GradientStep, rules: Mapping[str, TargetRule]):
        self.update, self.rules = update, dict(rules)

    @property
    def losses(self) -> nn.ModuleDict:
        """The losses of the gradient step, by group."""
        return self.update.losses

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer of the gradient step."""
        return self.update.optimizer

    @property
    def gradient_steps(self) -> list[GradientStep]:
        """The gradient step."""
        return self.update.gradient_steps

    def __call__(self, minibatch: TensorDictBase) -> Metrics:
        metrics: Metrics = self.update(minibatch)
        for rule in self.rules.values():
            rule()
        return metrics

    def state_dict(self) -> StateDict:
        """The states of the gradient step and of each rule."""
        return {
            "update": self.update.state_dict(),
            "rules": {name: rule.state_dict() for name, rule in self.rules.items()},
        }

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Restore what ``state_dict`` returned."""
        self.update.load_state_dict(state_dict["update"])
        for name, rule in self.rules.items():
            rule.load_state_dict(state_dict["rules"][name])


def _float_pairs(online: nn.Module, target_networks: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """The online networks' tensors, and the target of each; tensors that both networks share are left out."""
    pairs = zip(_float_tensors(online), _float_tensors(target_networks), strict=True)
    apart = [(tensor, target) for tensor, target in pairs if tensor is not target]
    return [tensor for tensor, _ in apart], [target for _, target in apart]


def _float_tensors(module: nn.Module) -> list[Tensor]:
    return [tensor for tensor in [*module.parameters(), *module.buffers()] if tensor.is_floating_point()]
