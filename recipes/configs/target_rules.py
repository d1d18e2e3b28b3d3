"""Updates of target networks as configurations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import ctde_kit as ck
from ctde_kit.recipes.configs.checks import CheckedConfig, check_positive, check_ratio

if TYPE_CHECKING:
    from ctde_kit.objectives.module_loss import ModuleLoss
    from ctde_kit.training import HardUpdate, PolyakUpdate


@dataclass
class TargetConfig(CheckedConfig):
    """How target networks follow the online ones; this is the base of all such configurations.

    Args:
        every: updates of the online networks from one move to the next.
    """

    every: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(**{"target.every": self.every})

    def build(self, loss: ModuleLoss) -> PolyakUpdate | HardUpdate:
        """What moves the target networks of ``loss``."""
        raise NotImplementedError


@dataclass
class PolyakTarget(TargetConfig):
    """Target networks that move a share of the way to the online ones at regular updates.

    Args:
        tau: the share.
        every: updates of the online networks from one move to the next.

    >>> from ctde_kit.recipes import MatrixTask, PolyakTarget, QMIXConfig
    >>> parts = QMIXConfig(task=MatrixTask(n_envs=2), target=PolyakTarget(tau=0.01)).build()
    >>> parts.update.rules["team"].tau
    0.01
    """

    tau: float = 0.005

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ratio(**{"target.tau": self.tau})
        check_positive(**{"target.tau": self.tau})

    def build(self, loss: ModuleLoss) -> PolyakUpdate:
        return ck.training.PolyakUpdate(loss.online_networks(), loss.target_networks, self.tau, self.every)


@dataclass
class HardTarget(TargetConfig):
    """Target networks that become a copy of the online ones at regular updates.

    Args:
        every: updates of the online networks from one move to the next.

    >>> from ctde_kit.recipes import HardTarget, MatrixTask, QMIXConfig
    >>> parts = QMIXConfig(task=MatrixTask(n_envs=2), target=HardTarget(every=100)).build()
    >>> parts.update.rules["team"].every
    100
    """

    every: int = 200

    def build(self, loss: ModuleLoss) -> HardUpdate:
        return ck.training.HardUpdate(loss.online_networks(), loss.target_networks, self.every)
