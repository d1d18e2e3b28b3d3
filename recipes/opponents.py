"""Opponents as configurations: groups that act and do not learn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ctde_kit.recipes.checks import check_not_negative
from ctde_kit.recipes.groups import load_group
from omegaconf import MISSING
from torchrl.envs.utils import ExplorationType

from ctde_kit.modules import FrozenActor, GreedyChase, RandomActor
from ctde_kit.modules.actors.team_policy import GroupActor
from ctde_kit.specs import GroupSpec, TeamSpec


@dataclass
class RandomOpponent:
    """Uniform random actions, among those that are allowed."""

    _target_: str = "ctde_kit.recipes.opponents.RandomOpponent"

    @property
    def label(self) -> str:
        return "random"

    def build(self, group: GroupSpec, team: TeamSpec, task: Any) -> GroupActor:
        return RandomActor(group)


@dataclass
class GreedyChaseOpponent:
    """The predators of simple_tag, each straight towards the nearest prey.

    Args:
        n_landmarks: obstacles that they observe.
    """

    n_landmarks: int = 2
    _target_: str = "ctde_kit.recipes.opponents.GreedyChaseOpponent"

    def __post_init__(self) -> None:
        check_not_negative(n_landmarks=self.n_landmarks)

    @property
    def label(self) -> str:
        return "greedy_chase"

    def build(self, group: GroupSpec, team: TeamSpec, task: Any) -> GroupActor:
        n_prey = sum(other.n_agents for other in team if other.name != group.name)
        return GreedyChase(group, n_prey, self.n_landmarks)


@dataclass
class RunOpponent:
    """The group as an earlier run of the same task left it, frozen.

    Args:
        directory: of that run.
        sampled: it samples its actions, or explores, as while it was trained; else it is greedy.
    """

    directory: str = MISSING
    sampled: bool = False
    _target_: str = "ctde_kit.recipes.opponents.RunOpponent"

    @property
    def label(self) -> str:
        return Path(self.directory).name + (" (sampled)" if self.sampled else "")

    def build(self, group: GroupSpec, team: TeamSpec, task: Any) -> GroupActor:
        # Its weights are drawn before they are loaded: this run's random numbers must not depend on its opponents.
        with torch.random.fork_rng():
            actor = load_group(Path(self.directory), group, team, task)
        exploration: Any = ExplorationType.RANDOM if self.sampled else ExplorationType.DETERMINISTIC
        return FrozenActor(actor, exploration)
