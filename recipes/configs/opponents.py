"""Opponents as configurations: groups that act and do not learn."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import ctde_kit as ck
from ctde_kit.errors import UserError
from ctde_kit.recipes.configs.actors import ActorConfig, StochasticActorConfig
from ctde_kit.recipes.configs.checks import PATH, check_not_negative

if TYPE_CHECKING:
    from ctde_kit.modules import FrozenActor
    from ctde_kit.protocols import GroupActor
    from ctde_kit.recipes.configs.tasks.task import TaskConfig
    from ctde_kit.specs import GroupSpec, TeamSpec


@dataclass
class OpponentConfig(ActorConfig):
    """Who acts for a group without learning; this is the base of all opponents' configurations."""

    @property
    def label(self) -> str:
        """Its name in tables and plots."""
        raise NotImplementedError


@dataclass
class RandomOpponent(OpponentConfig):
    """An opponent whose actions are uniformly random, among those that are allowed.

    >>> from ctde_kit.recipes import MAPPOConfig, RandomOpponent, VmasTask
    >>> tag = VmasTask("vmas/simple_tag", n_envs=2, groups_compete=True)
    >>> parts = MAPPOConfig(task=tag, opponents={"agent": RandomOpponent()}).build()
    >>> list(parts.update.losses)
    ['adversary']
    """

    @property
    def label(self) -> str:
        return "random"

    def build(self, group: GroupSpec, team: TeamSpec) -> GroupActor:
        return ck.modules.RandomActor(group)


@dataclass
class ZeroOpponent(OpponentConfig):
    """An opponent that does nothing: no force, or choice 0.

    >>> from ctde_kit.recipes import MAPPOConfig, VmasTask, ZeroOpponent
    >>> tag = VmasTask("vmas/simple_tag", n_envs=2, groups_compete=True)
    >>> parts = MAPPOConfig(task=tag, opponents={"agent": ZeroOpponent()}).build()
    >>> list(parts.update.losses)
    ['adversary']
    """

    @property
    def label(self) -> str:
        return "zero"

    def build(self, group: GroupSpec, team: TeamSpec) -> GroupActor:
        return ck.modules.ZeroActor(group)


@dataclass
class HeuristicOpponent(OpponentConfig):
    """The scripted policy that VMAS ships with the scenario, for scenarios that have one.

    Args:
        scenario: of VMAS; null for the task's own.

    >>> from ctde_kit.recipes import HeuristicOpponent, VmasTask
    >>> HeuristicOpponent().for_task(VmasTask("vmas/balance")).scenario
    'balance'
    """

    scenario: str | None = None

    @property
    def label(self) -> str:
        return "heuristic"

    def for_task(self, task: TaskConfig) -> HeuristicOpponent:
        family, _, name = task.name.partition("/")
        if self.scenario is None and family != "vmas":
            raise UserError(
                f"heuristic: scripted policies come with VMAS's scenarios, this is {task.name}; use another"
            )
        if self.scenario is None and getattr(task, "scenario", None) is not None:
            raise UserError(f"heuristic: {task.name} is a scenario of your own and has no scripted policy; use another")
        return self if self.scenario is not None else replace(self, scenario=name)

    def build(self, group: GroupSpec, team: TeamSpec) -> GroupActor:
        if self.scenario is None:
            raise UserError("heuristic: expected a scenario, found null; give the scenario of VMAS whose policy it is")
        from ctde_kit.envs.vmas import VmasHeuristic

        return VmasHeuristic(group, self.scenario)


@dataclass
class GreedyChaseOpponent(OpponentConfig):
    """The predators of simple_tag as a script: each heads straight for the nearest prey.

    Args:
        n_landmarks: obstacles that they observe.

    >>> from ctde_kit.recipes import GreedyChaseOpponent, MAPPOConfig, VmasTask
    >>> tag = VmasTask("vmas/simple_tag", n_envs=2, groups_compete=True)
    >>> parts = MAPPOConfig(task=tag, opponents={"adversary": GreedyChaseOpponent()}).build()
    >>> list(parts.update.losses)
    ['agent']
    """

    n_landmarks: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative(n_landmarks=self.n_landmarks)

    @property
    def label(self) -> str:
        return "greedy_chase"

    def build(self, group: GroupSpec, team: TeamSpec) -> GroupActor:
        n_prey = sum(other.n_agents for other in team if other.name != group.name)
        return ck.modules.GreedyChase(group, n_prey, self.n_landmarks)


@dataclass
class RunOpponent(OpponentConfig):
    """The group as an earlier run of the same task left it, frozen.

    ``wiring.policies`` loads it; this class has no ``build`` of its own.

    Args:
        directory: of that run.
        sampled: it samples its actions, or explores, as while it was trained; else it is greedy.

    >>> from ctde_kit.recipes import RunOpponent
    >>> RunOpponent("runs/tag_seed_3", sampled=True).label
    'tag_seed_3 (sampled)'
    """

    directory: str = field(metadata=PATH)
    sampled: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.directory = str(Path(self.directory))

    @property
    def label(self) -> str:
        return Path(self.directory).name + (" (sampled)" if self.sampled else "")


@dataclass
class FrozenActorConfig(OpponentConfig):
    """An actor that no longer learns.

    Args:
        actor: what it was while it learned.
        sampled: it samples its actions, or explores, as while it was trained; else it is greedy.
    """

    actor: ActorConfig = field(default_factory=StochasticActorConfig)
    sampled: bool = False

    @property
    def label(self) -> str:
        return "frozen (sampled)" if self.sampled else "frozen"

    def build(self, group: GroupSpec, team: TeamSpec) -> FrozenActor:
        from torchrl.envs.utils import ExplorationType

        exploration = ExplorationType.RANDOM if self.sampled else ExplorationType.DETERMINISTIC
        return ck.modules.FrozenActor(self.actor.build(group, team), exploration)  # pyright: ignore[reportArgumentType]  # a checked choice
