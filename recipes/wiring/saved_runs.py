"""What earlier runs left behind, read as data: their task, and each group's actor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ctde_kit as ck
from ctde_kit.errors import UserError
from ctde_kit.files import JsonObject
from ctde_kit.recipes.configs.actors import ActorConfig
from ctde_kit.recipes.configs.data import from_data, read_data
from ctde_kit.recipes.configs.opponents import RunOpponent
from ctde_kit.recipes.configs.own_code import check_trust, code_of, identified, recorded
from ctde_kit.recipes.configs.recipe import RecipeConfig
from ctde_kit.recipes.configs.tasks.task import TaskConfig
from ctde_kit.recipes.wiring.population_directory import PopulationDirectory

if TYPE_CHECKING:
    from torch import Tensor

    from ctde_kit.specs import GroupSpec, TeamSpec

# How the actors of a run are built, beside its configuration; and the user's own code that it was started with.
ACTORS_FILE, CODE_FILE = "actors.yaml", "code.yaml"

# Options of tasks that, beside the task's name, say which environment it is.
IDENTIFYING = ("scenario", "env", "env_id", "map_name", "payoff", "next_state", "two_groups")


@dataclass(frozen=True)
class SavedRun:
    """A run directory, whichever recipe wrote it.

    Args:
        directory: of the run.
    """

    directory: Path

    @cached_property
    def config(self) -> JsonObject:
        """Its options as plain data.

        Raises:
            UserError: where there is no such run.
        """
        path = self.directory / "config.yaml"
        if PopulationDirectory(self.directory).exists and not path.is_file():
            raise UserError(f"{self.directory} is a population: give the run of a member, {self.directory}/members/0")
        data = read_data(path)
        mappings = (data.get("task"), data.get("opponents", {}))
        if "algorithm" not in data or not all(isinstance(value, dict) for value in mappings):
            raise UserError(f"{path} is no whole configuration of a run: restore it, or start a new run")
        return data

    @property
    def opponents(self) -> set[str]:
        """Groups that did not learn."""
        return set(self.config.get("opponents", {}))

    @property
    def task(self) -> TaskConfig:
        return from_data(TaskConfig, self.config["task"], f"{self.directory / 'config.yaml'}: task")

    def check_trust(self, config: object, *, trust: bool) -> None:
        """Raise ``UserError`` where ``config``, read from this run, names code that nobody has said to trust."""
        check_trust(config, self.code, self.directory / "config.yaml", trust=trust)

    @cached_property
    def code(self) -> dict[str, Any]:
        """What was recorded of the user's own code, by its names in the configuration."""
        path = self.directory / CODE_FILE
        return read_data(path) if path.is_file() else {}

    @property
    def environment(self) -> dict[str, Any]:
        """What identifies the task's environment, to compare runs; a user's own code counts by content, not by path."""
        return _environment(self.task, self.code)

    def check_task(self, task: TaskConfig) -> None:
        """Raise ``UserError`` where the run is of another task, or of another kind of action."""
        theirs, ours = self.task, _environment(task, recorded(code_of(task)))
        if type(theirs) is not type(task):
            raise UserError(
                f"{self.directory} is a run of a {type(theirs).__name__}, this is a {type(task).__name__}; give a run "
                "of the same task"
            )
        for option, found in self.environment.items():
            if found != ours.get(option):
                raise UserError(
                    f"{self.directory} is a run of {found}, this is {ours.get(option)}; give a run of the same task"
                )
        if theirs.continuous != task.continuous:
            raise UserError(
                f"{self.directory} was trained with task.continuous_actions={str(theirs.continuous).lower()}, this is "
                f"{str(task.continuous).lower()}; set it alike"
            )

    def actor_config(self, group: str) -> ActorConfig:
        """How the actor of ``group`` is built."""
        path = self.directory / ACTORS_FILE
        data = read_data(path)
        if group not in data:
            raise UserError(f"{path}: expected group {group!r}, found {', '.join(data)}; give a run of the same task")
        return from_data(ActorConfig, data[group], f"{path}: {group}")

    def actor_state(self, group: GroupSpec, team: TeamSpec) -> dict[str, Tensor]:
        """The actor's parameters and buffers as the last checkpoint left them."""
        path = ck.training.latest_checkpoint(self.directory / "checkpoints")
        policy = ck.training.read_checkpoint(path, algorithm=self.config["algorithm"])["parts"]["policy"]
        return state_of_group(policy, [other.name for other in team], group.name)


def _environment(task: TaskConfig, code: Mapping[str, Any]) -> dict[str, Any]:
    named = {option: getattr(task, option) for option in IDENTIFYING if getattr(task, option, None) is not None}
    own = {option: identified(name, code) for option, name in named.items() if isinstance(name, str) and name in code}
    # The name of a user's own environment depends on where its code lies, so its code's SHA-256 takes the name's place.
    return {"name": next(iter(own.values()), task.name), **named, **own}


def state_of_group(policy: Mapping[str, Tensor], groups: Sequence[str], group: str) -> dict[str, Tensor]:
    """What the state of a ``TeamPolicy`` of these ``groups`` holds of the actor of one."""
    prefix = f"module.{groups.index(group)}."
    return {name.removeprefix(prefix): value for name, value in policy.items() if name.startswith(prefix)}


def as_saved(config: RecipeConfig, run: SavedRun) -> RecipeConfig:
    """``config`` of ``run`` without the earlier runs that it names; the run's own files hold what it needs of them.

    Its parts are those that a checkpoint of ``run`` fits; their parameters are to be loaded from one.
    """
    opponents: dict[str, Any] = {
        group: run.actor_config(group) if isinstance(opponent, RunOpponent) else opponent
        for group, opponent in config.opponents.items()
    }
    return replace(config, opponents=opponents, initial={})
