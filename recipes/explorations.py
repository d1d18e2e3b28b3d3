"""Exploration of deterministic actors as configurations."""

from __future__ import annotations

from dataclasses import dataclass

from ctde_kit.recipes.checks import check_not_negative, check_positive

from ctde_kit.modules import GaussianNoise, GumbelNoise, OrnsteinUhlenbeckNoise
from ctde_kit.specs import GroupSpec


@dataclass
class GaussianExploration:
    """Independent Gaussian noise on continuous actions.

    Args:
        start: its deviation at the beginning, in halves of the action's range.
        end: and after ``frames``.
        frames: between.
    """

    start: float = 0.5
    end: float = 0.05
    frames: int = 100_000
    _target_: str = "ctde_kit.recipes.explorations.GaussianExploration"

    def __post_init__(self) -> None:
        check_schedule(self.start, self.end, self.frames)

    def build(self, group: GroupSpec) -> GaussianNoise:
        return GaussianNoise(group, self.start)


@dataclass
class OrnsteinUhlenbeckExploration:
    """Noise on continuous actions that is correlated over the steps of an episode.

    Args:
        start: what the process is multiplied by at the beginning, in halves of the action's range.
        end: and after ``frames``.
        frames: between.
        theta: how fast the process returns to zero, 1 / step.
        sigma: its deviation, 1 / sqrt(step).
    """

    start: float = 1.0
    end: float = 0.1
    frames: int = 100_000
    theta: float = 0.15
    sigma: float = 0.2
    _target_: str = "ctde_kit.recipes.explorations.OrnsteinUhlenbeckExploration"

    def __post_init__(self) -> None:
        check_schedule(self.start, self.end, self.frames)
        check_not_negative(**{"exploration.theta": self.theta, "exploration.sigma": self.sigma})

    def build(self, group: GroupSpec) -> OrnsteinUhlenbeckNoise:
        return OrnsteinUhlenbeckNoise(group, self.start, theta=self.theta, sigma=self.sigma)


@dataclass
class GumbelExploration:
    """Discrete actions are samples of the policy's softmax, at its temperature 1 where the noise is 1.

    Args:
        start: the share of the noise at the beginning.
        end: and after ``frames``; 0 is the best action.
        frames: between.
    """

    start: float = 1.0
    end: float = 1.0
    frames: int = 100_000
    _target_: str = "ctde_kit.recipes.explorations.GumbelExploration"

    def __post_init__(self) -> None:
        check_schedule(self.start, self.end, self.frames)

    def build(self, group: GroupSpec) -> GumbelNoise:
        return GumbelNoise(group, self.start)


def check_schedule(start: float, end: float, frames: int) -> None:
    """Raise ``UserError`` for negative noise, or a schedule of no frames."""
    check_not_negative(**{"exploration.start": start, "exploration.end": end})
    check_positive(**{"exploration.frames": frames})
