"""VMAS scenarios as tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ctde_kit as ck
from ctde_kit.recipes.configs.tasks.task import TaskConfig, chosen_actions, naming_params

if TYPE_CHECKING:
    import numpy as np
    from torchrl.envs import EnvBase


@dataclass
class VmasTask(TaskConfig):
    """A VMAS scenario, many environments as one batch of tensors.

    Args:
        name: of the task, ``vmas/{scenario}``.
        n_envs: environments in the batch.
        groups_compete: report returns per group only.
        max_steps: steps per episode.
        continuous_actions: continuous or discrete actions; null for what the recipe needs, else continuous.
        params: the scenario's own arguments.

    >>> from ctde_kit.recipes import VmasTask
    >>> env = VmasTask("vmas/navigation", n_envs=2, params={"n_agents": 3}).build(seed=0, device="cpu")
    >>> env.reset()["agents", "observation"].shape
    torch.Size([2, 3, 18])
    """

    name: str = "vmas/navigation"
    max_steps: int = 100
    continuous_actions: bool | None = None
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def continuous(self) -> bool:
        return self.continuous_actions is not False

    @property
    def episode_steps(self) -> int:
        return self.max_steps

    def with_actions(self, *, continuous: bool | None) -> VmasTask:
        return chosen_actions(self, continuous is not False)

    def build(self, *, seed: int, device: str, n_envs: int | None = None) -> EnvBase:
        with naming_params(self.name, self.params):
            return ck.VmasEnv(
                self.name.split("/", 1)[-1],
                num_envs=n_envs or self.n_envs,
                max_steps=self.max_steps,
                continuous_actions=self.continuous,
                seed=seed,
                device=device,
                scenario_kwargs=self.params,
            )

    def renderer(self, env: EnvBase) -> Callable[[], np.ndarray]:
        from ctde_kit.envs.vmas.rendering import render_frame

        base_env = env.base_env
        assert isinstance(base_env, ck.VmasEnv)
        return lambda: render_frame(base_env.simulation.world)

    def evaluation_envs(self, episodes: int) -> int:
        return min(episodes, 1000)
