"""The kit's memory task."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ctde_kit.files import JsonObject
from ctde_kit.recipes.configs.tasks.naming_params import naming_params
from ctde_kit.recipes.configs.tasks.task import TaskConfig, check_params

if TYPE_CHECKING:
    from torchrl.envs import EnvBase


@dataclass
class RecallTask(TaskConfig):
    """The kit's memory task: a cue is shown at the first step and asked for at the last.

    Args:
        name: of the task.
        n_envs: environments in the batch.
        groups_compete: null, since there is one group.
        max_steps: steps per episode.
        params: n_agents and n_cues.

    >>> from ctde_kit.recipes import RecallTask
    >>> env = RecallTask(n_envs=2, max_steps=5).build(seed=0, device="cpu")
    >>> env.rollout(10)["next", "done"].squeeze(-1)
    tensor([[False, False, False, False,  True],
            [False, False, False, False,  True]])
    """

    name: str = "memory/recall"
    max_steps: int = 8
    params: JsonObject = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_params(self.name, self.params, ("n_agents", "n_cues"))

    @property
    def episode_steps(self) -> int:
        return self.max_steps

    def build(self, *, seed: int, device: str, n_envs: int | None = None) -> EnvBase:
        from ctde_kit.envs.games import RecallEnv

        with naming_params(self.name, self.params):
            return RecallEnv(n_envs or self.n_envs, length=self.max_steps, seed=seed, device=device, **self.params)
