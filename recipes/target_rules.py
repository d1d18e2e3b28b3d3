"""How target networks follow, as configurations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ctde_kit.recipes.checks import check_positive, check_ratio

from ctde_kit.training import HardUpdate, PolyakUpdate


@dataclass
class PolyakTarget:
    """A share of the way after each update, or after every so many.

    Args:
        tau: the share.
        every: in updates.
    """

    tau: float = 0.005
    every: int = 1
    _target_: str = "ctde_kit.recipes.target_rules.PolyakTarget"

    def __post_init__(self) -> None:
        check_ratio(**{"target.tau": self.tau})
        check_positive(**{"target.tau": self.tau, "target.every": self.every})

    def build(self, loss: Any) -> PolyakUpdate:
        return PolyakUpdate(loss.online_networks(), loss.target_networks, self.tau, self.every)


@dataclass
class HardTarget:
    """A copy every so many updates.

    Args:
        every: in updates.
    """

    every: int = 200
    _target_: str = "ctde_kit.recipes.target_rules.HardTarget"

    def __post_init__(self) -> None:
        check_positive(**{"target.every": self.every})

    def build(self, loss: Any) -> HardUpdate:
        return HardUpdate(loss.online_networks(), loss.target_networks, self.every)
