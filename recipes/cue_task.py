"""The kit's communication task as a configuration that builds its environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ctde_kit.recipes.checks import check_positive
from ctde_kit.recipes.tasks import naming_params
from torchrl.envs import EnvBase

from ctde_kit.errors import UserError

PARAMS = ("n_agents", "n_goals")


@dataclass
class CueTask:
    """The kit's communication task.

    Args:
        name: of the task.
        n_envs: environments in the batch.
        max_steps: steps an episode.
        two_groups: those who see and those who choose are groups of their own, with observations of their own size.
        params: n_agents and n_goals.
        groups_compete: all get the same reward.
    """

    name: str = "communication/cue"
    n_envs: int = 60
    max_steps: int = 4
    two_groups: bool = False
    params: dict[str, Any] = field(default_factory=dict)
    groups_compete: bool = False
    _target_: str = "ctde_kit.recipes.cue_task.CueTask"

    def __post_init__(self) -> None:
        check_positive(**{"task.n_envs": self.n_envs, "task.max_steps": self.max_steps})
        unknown = sorted(self.params.keys() - set(PARAMS))
        if unknown:
            raise UserError(f"task.params.{unknown[0]}: {self.name} never reads it; it reads {' and '.join(PARAMS)}")

    def build(self, *, seed: int, device: str, n_envs: int | None = None) -> EnvBase:
        """The environment, ``n_envs`` wide."""
        from ctde_kit.envs.games import CueEnv

        with naming_params(self.name, self.params):
            return CueEnv(
                n_envs or self.n_envs,
                length=self.max_steps,
                two_groups=self.two_groups,
                seed=seed,
                device=device,
                **self.params,
            )

    def renderer(self, env: EnvBase) -> None:
        """There is nothing to draw."""
        return None

    def evaluation_envs(self, episodes: int) -> int:
        """All episodes side by side."""
        return episodes
