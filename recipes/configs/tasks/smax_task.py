"""SMAX's battles as tasks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ctde_kit.recipes.configs.tasks.naming_params import naming_params
from ctde_kit.recipes.configs.tasks.task import TaskConfig

if TYPE_CHECKING:
    from torchrl.envs import EnvBase


@dataclass
class SmaxTask(TaskConfig):
    """SMAX, JaxMARL's StarCraft-like battles against a scripted enemy, as one batch of JAX's arrays.

    Args:
        name: of the task.
        n_envs: battles in the batch.
        groups_compete: null, since there is one group, the allies.
        map_name: of JaxMARL, such as 3m or smacv2_5_units.
        max_steps: steps per battle.
        params: the arguments of JaxMARL's SMAX.

    >>> from ctde_kit.recipes import SmaxTask
    >>> SmaxTask("smax/2s3z", map_name="2s3z").episode_steps
    100
    """

    name: str = "smax/3m"
    map_name: str = "3m"
    max_steps: int = 100
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def episode_steps(self) -> int:
        return self.max_steps

    def build(self, *, seed: int, device: str, n_envs: int | None = None) -> EnvBase:
        from ctde_kit.envs.smax import SmaxEnv

        with naming_params(self.name, self.params):
            return SmaxEnv(
                n_envs or self.n_envs, self.map_name, max_steps=self.max_steps, seed=seed, device=device, **self.params
            )

    def action_meaning(self, env: EnvBase, group: str, agent: int) -> str:
        return "north, east, south, west, stop, then shoot at each enemy"
