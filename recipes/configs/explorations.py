"""Exploration of deterministic actors as configurations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import ctde_kit as ck
from ctde_kit.recipes.configs.checks import CheckedConfig, check_not_negative, check_positive

if TYPE_CHECKING:
    from ctde_kit.modules import GaussianNoise, GumbelNoise, OrnsteinUhlenbeckNoise
    from ctde_kit.specs import GroupSpec


@dataclass
class ExplorationConfig(CheckedConfig):
    """Noise of deterministic actors; this is the base of all explorations' configurations.

    Args:
        start: the amount of noise at the beginning.
        end: the amount after ``frames``.
        frames: env transitions over which it goes from ``start`` to ``end`` in a straight line.
    """

    start: float = 1.0
    end: float = 1.0
    frames: int = 100_000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative(**{"exploration.start": self.start, "exploration.end": self.end})
        check_positive(**{"exploration.frames": self.frames})

    def build(self, group: GroupSpec) -> GaussianNoise | GumbelNoise | OrnsteinUhlenbeckNoise:
        """The noise of one group's actor."""
        raise NotImplementedError


@dataclass
class GaussianExploration(ExplorationConfig):
    """Independent Gaussian noise on continuous actions.

    Args:
        start: its deviation at the beginning, in halves of the action's range.
        end: its deviation after ``frames``.
        frames: env transitions over which it goes from ``start`` to ``end`` in a straight line.

    >>> import ctde_kit as ck
    >>> from ctde_kit.recipes import GaussianExploration
    >>> group = ck.TeamSpec.from_env(ck.VmasEnv("navigation", num_envs=2))["agents"]
    >>> GaussianExploration(start=0.5).build(group).scale
    tensor(0.5000)
    """

    start: float = 0.5
    end: float = 0.05

    def build(self, group: GroupSpec) -> GaussianNoise:
        return ck.modules.GaussianNoise(group, self.start)


@dataclass
class OrnsteinUhlenbeckExploration(ExplorationConfig):
    """Noise on continuous actions that is correlated over the steps of an episode.

    Args:
        start: what the process is multiplied by at the beginning, in halves of the action's range.
        end: that factor after ``frames``.
        frames: env transitions over which it goes from ``start`` to ``end`` in a straight line.
        theta: how fast the process returns to zero, 1 / step.
        sigma: its deviation, 1 / sqrt(step).

    >>> import ctde_kit as ck
    >>> from ctde_kit.recipes import OrnsteinUhlenbeckExploration
    >>> group = ck.TeamSpec.from_env(ck.VmasEnv("navigation", num_envs=2))["agents"]
    >>> OrnsteinUhlenbeckExploration(theta=0.15, sigma=0.2).build(group).in_keys
    [('agents', 'noise'), 'is_init']
    """

    start: float = 1.0
    end: float = 0.1
    frames: int = 100_000
    theta: float = 0.15
    sigma: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative(**{"exploration.theta": self.theta, "exploration.sigma": self.sigma})

    def build(self, group: GroupSpec) -> OrnsteinUhlenbeckNoise:
        return ck.modules.OrnsteinUhlenbeckNoise(group, self.start, theta=self.theta, sigma=self.sigma)


@dataclass
class GumbelExploration(ExplorationConfig):
    """Gumbel noise on the logits of discrete actions: at 1, actions are samples of the policy's softmax.

    Args:
        start: the share of the noise at the beginning.
        end: the share after ``frames``; at 0 the action is the policy's best.
        frames: env transitions over which it goes from ``start`` to ``end`` in a straight line.

    >>> import ctde_kit as ck
    >>> from ctde_kit.recipes import GumbelExploration
    >>> group = ck.TeamSpec.from_env(ck.VmasEnv("navigation", num_envs=2, continuous_actions=False))["agents"]
    >>> GumbelExploration(start=1.0, end=0.0).build(group).scale
    tensor(1.)
    """

    start: float = 1.0
    end: float = 1.0
    frames: int = 100_000

    def build(self, group: GroupSpec) -> GumbelNoise:
        return ck.modules.GumbelNoise(group, self.start)
