"""The base of all tasks' configurations, and checks that they share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

from ctde_kit.errors import UserError
from ctde_kit.files import JsonObject
from ctde_kit.recipes.configs.checks import PATH, CheckedConfig, check_positive
from ctde_kit.recipes.configs.own_modules import with_absolute_file

if TYPE_CHECKING:
    from typing import Self

    import numpy as np
    from torchrl.envs import EnvBase


class Renderer(Protocol):
    """Draws the environment ``env_index`` of a batch, uint8 ``[H, W, 3]``."""

    def __call__(self, env_index: int = 0) -> np.ndarray: ...


def worker_renderer(env: EnvBase) -> Renderer:
    """Pictures of environments in worker processes, as they draw them."""
    from ctde_kit.envs.workers import WorkerEnv

    base_env = env.base_env
    assert isinstance(base_env, WorkerEnv)
    return base_env.render_frame


@dataclass
class TaskConfig(CheckedConfig):
    """An environment to learn in; this is the base of all tasks.

    Args:
        name: of the task, as reports show it.
        n_envs: environments in the batch.
        groups_compete: groups have opposed interests, so returns are reported per group only; null where there is one
            group; with several groups it must be true or false.
    """

    # Options of a recipe, by their paths, that have other values with this task unless they are given.
    run_options: ClassVar[Mapping[str, int]] = {}

    name: str = "task"
    n_envs: int = 60
    groups_compete: bool | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        given = {name: getattr(self, name, None) for name in ("n_envs", "max_steps", "n_workers", "worker_timeout")}
        check_positive(**{f"task.{name}": value for name, value in given.items()})
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.metadata == PATH and value is not None:
                setattr(self, field.name, with_absolute_file(value))

    def check_interests(self, groups: Sequence[str]) -> None:
        """Raise ``UserError`` where nobody has said whether the groups of the environment compete.

        Args:
            groups: their names.
        """
        if self.groups_compete is None and len(groups) > 1:
            raise UserError(
                f"task.groups_compete: {self.name} has the groups {', '.join(groups)}; say true where one loses what "
                "another earns (each is then reported alone, and no mixer joins them), or false where all are one team "
                "(`ctde describe` shows what random play earns)"
            )

    @property
    def continuous(self) -> bool | None:
        """Whether actions are continuous; ``None`` where the environment decides."""
        return None

    @property
    def episode_steps(self) -> int | None:
        """Steps of the longest episode; ``None`` where only the environment knows."""
        raise NotImplementedError

    def with_actions(self, *, continuous: bool | None) -> Self:
        """This task with the kind of action that a recipe needs, unless the task says which; ``None``: its own."""
        return self

    def build(self, *, seed: int, device: str, n_envs: int | None = None) -> EnvBase:
        """The environment with ``n_envs`` copies in its batch."""
        raise NotImplementedError

    def build_evaluation(self, *, seed: int, device: str, episodes: int) -> EnvBase:
        """The environment of evaluations of ``episodes`` episodes."""
        return self.build(seed=seed, device=device, n_envs=self.evaluation_envs(episodes))

    def action_meaning(self, env: EnvBase, group: str, agent: int) -> str:
        """What the numbers of an agent's action are, for whoever runs a policy elsewhere."""
        return f"the action of {self.name}, as its documentation says"

    def build_rendered(self, *, seed: int, device: str, episodes: int) -> EnvBase:
        """The environment of evaluations, built so that ``renderer`` can draw it; its steps are the same."""
        return self.build_evaluation(seed=seed, device=device, episodes=episodes)

    def renderer(self, env: EnvBase) -> Renderer | None:
        """Draws an environment of the batch, by default the first; ``None`` where nothing can be drawn."""
        return None

    def evaluation_envs(self, episodes: int) -> int:
        """How many envs an evaluation runs side by side; by default one per episode."""
        return episodes


class WithBothActions(Protocol):
    """A task whose actions may be continuous or discrete."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[object]]]
    continuous_actions: bool | None


Task = TypeVar("Task", bound=WithBothActions)


def chosen_actions(task: Task, continuous: bool) -> Task:
    """A copy of ``task`` with the field ``continuous_actions`` filled in, where it is ``None``."""
    return task if task.continuous_actions is not None else dataclasses.replace(task, continuous_actions=continuous)


def check_params(name: str, params: JsonObject, known: tuple[str, ...]) -> None:
    """Raise ``UserError`` for an argument that the environment never reads."""
    unknown = sorted(params.keys() - set(known))
    if unknown:
        raise UserError(f"task.params.{unknown[0]}: {name} never reads it; it reads {' and '.join(known)}")
