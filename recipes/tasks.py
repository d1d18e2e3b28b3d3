"""Tasks as configurations that build their environment."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ctde_kit.recipes.checks import check_positive
from omegaconf import MISSING
from torchrl.envs import EnvBase

from ctde_kit.errors import UserError


@contextlib.contextmanager
def naming_params(task: str, params: dict[str, Any]) -> Iterator[None]:
    """Turn whatever an environment raises at wrong arguments into a ``UserError`` that names them."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise UserError(f"{task} does not build with task.params={params} ({reason}); change task.params") from error


@dataclass
class VmasTask:
    """A VMAS scenario.

    Args:
        name: of the task, ``vmas/{scenario}``.
        n_envs: environments in the batch.
        max_steps: steps an episode.
        continuous_actions: continuous or discrete actions.
        params: the scenario's own arguments.
        groups_compete: report returns a group only.
    """

    name: str = MISSING
    n_envs: int = 60
    max_steps: int = 100
    continuous_actions: bool = True
    params: dict[str, Any] = field(default_factory=dict)
    groups_compete: bool = False
    _target_: str = "ctde_kit.recipes.tasks.VmasTask"

    def __post_init__(self) -> None:
        check_positive(**{"task.n_envs": self.n_envs, "task.max_steps": self.max_steps})

    def build(self, *, seed: int, device: str, n_envs: int | None = None) -> EnvBase:
        """The environment, ``n_envs`` wide."""
        from ctde_kit.envs.vmas import VmasEnv

        with naming_params(self.name, self.params):
            return VmasEnv(
                self.name.split("/", 1)[-1],
                num_envs=n_envs or self.n_envs,
                max_steps=self.max_steps,
                continuous_actions=self.continuous_actions,
                seed=seed,
                device=device,
                scenario_kwargs=self.params,
            )

    def renderer(self, env: EnvBase) -> Callable[[], np.ndarray]:
        """Draws the first environment of the batch."""
        from ctde_kit.envs.vmas import VmasEnv
        from ctde_kit.envs.vmas.rendering import render_frame

        base_env = env.base_env
        assert isinstance(base_env, VmasEnv)
        return lambda: render_frame(base_env.world)

    def evaluation_envs(self, episodes: int) -> int:
        """How wide an evaluation env is: VMAS runs all episodes side by side."""
        return min(episodes, 1000)


@dataclass
class RecallTask:
    """The kit's memory task.

    Args:
        name: of the task.
        n_envs: environments in the batch.
        max_steps: steps an episode: the cue is shown at the first and asked for at the last.
        params: n_agents and n_cues.
        groups_compete: there is one group.
    """

    name: str = "memory/recall"
    n_envs: int = 60
    max_steps: int = 8
    params: dict[str, Any] = field(default_factory=dict)
    groups_compete: bool = False
    _target_: str = "ctde_kit.recipes.tasks.RecallTask"

    def __post_init__(self) -> None:
        check_positive(**{"task.n_envs": self.n_envs, "task.max_steps": self.max_steps})
        unknown = sorted(self.params.keys() - {"n_agents", "n_cues"})
        if unknown:
            raise UserError(f"task.params.{unknown[0]}: {self.name} never reads it; it reads n_agents and n_cues")

    def build(self, *, seed: int, device: str, n_envs: int | None = None) -> EnvBase:
        """The environment, ``n_envs`` wide."""
        from ctde_kit.envs.games import RecallEnv

        with naming_params(self.name, self.params):
            return RecallEnv(n_envs or self.n_envs, length=self.max_steps, seed=seed, device=device, **self.params)

    def renderer(self, env: EnvBase) -> None:
        """There is nothing to draw."""
        return None

    def evaluation_envs(self, episodes: int) -> int:
        """All episodes side by side."""
        return episodes


@dataclass
class PettingZooTask:
    """A PettingZoo environment, many side by side in worker processes.

    Args:
        name: of the task.
        env: family and module, such as mpe2/simple_spread_v3 or sisl/multiwalker_v9.
        n_envs: environments in the batch.
        n_workers: processes; null for one a core.
        max_steps: steps an episode.
        continuous_actions: for environments that offer both; null for those that do not.
        return_state: write the env's global state; null where it has one.
        params: the environment's own arguments.
        groups_compete: report returns a group only.
    """

    name: str = MISSING
    env: str = MISSING
    n_envs: int = 60
    n_workers: int | None = None
    max_steps: int = 25
    continuous_actions: bool | None = False
    return_state: bool | None = None
    params: dict[str, Any] = field(default_factory=dict)
    groups_compete: bool = False
    _target_: str = "ctde_kit.recipes.tasks.PettingZooTask"

    def __post_init__(self) -> None:
        check_positive(
            **{"task.n_envs": self.n_envs, "task.n_workers": self.n_workers, "task.max_steps": self.max_steps}
        )

    def build(self, *, seed: int, device: str, n_envs: int | None = None) -> EnvBase:
        """The environment, ``n_envs`` wide."""
        from ctde_kit.envs.pettingzoo import pettingzoo_factory
        from ctde_kit.envs.workers import worker_env

        params = dict(self.params)
        if self.continuous_actions is not None:
            params["continuous_actions"] = self.continuous_actions
        with naming_params(self.name, params):
            return worker_env(
                pettingzoo_factory(self.env, **params),
                n_envs=n_envs or self.n_envs,
                n_workers=self.n_workers,
                max_steps=self.max_steps,
                seed=seed,
                return_state=self.return_state,
                device=device,
            )

    def renderer(self, env: EnvBase) -> None:
        """There is none: the environments live in other processes."""
        return None

    def evaluation_envs(self, episodes: int) -> int:
        """As wide as training."""
        return min(episodes, self.n_envs)


@dataclass
class LbfTask:
    """Level-based foraging, many environments side by side in worker processes.

    Args:
        name: of the task.
        env_id: as lbforaging registers it.
        n_envs: environments in the batch.
        n_workers: processes; null for one a core.
        max_steps: steps an episode.
        groups_compete: there is one group.
    """

    name: str = MISSING
    env_id: str = MISSING
    n_envs: int = 60
    n_workers: int | None = None
    max_steps: int = 50
    groups_compete: bool = False
    _target_: str = "ctde_kit.recipes.tasks.LbfTask"

    def __post_init__(self) -> None:
        check_positive(
            **{"task.n_envs": self.n_envs, "task.n_workers": self.n_workers, "task.max_steps": self.max_steps}
        )

    def build(self, *, seed: int, device: str, n_envs: int | None = None) -> EnvBase:
        """The environment, ``n_envs`` wide."""
        from ctde_kit.envs.lbf import lbf_parallel_env
        from ctde_kit.envs.workers import worker_env

        lbf_parallel_env(self.env_id)
        return worker_env(
            lambda: lbf_parallel_env(self.env_id, self.max_steps),
            n_envs=n_envs or self.n_envs,
            n_workers=self.n_workers,
            seed=seed,
            device=device,
        )

    def renderer(self, env: EnvBase) -> None:
        """There is none: the environments live in other processes."""
        return None

    def evaluation_envs(self, episodes: int) -> int:
        """As wide as training."""
        return min(episodes, self.n_envs)
