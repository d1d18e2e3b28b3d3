"""The kit's communication task."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ctde_kit.files import JsonObject
from ctde_kit.recipes.configs.tasks.naming_params import naming_params
from ctde_kit.recipes.configs.tasks.task import TaskConfig, check_params

if TYPE_CHECKING:
    from torchrl.envs import EnvBase


@dataclass
class CueTask(TaskConfig):
    """The kit's communication task: some agents see a goal, the others choose.

    Args:
        name: of the task.
        n_envs: environments in the batch.
        groups_compete: false, since all agents get the same reward.
        max_steps: steps per episode.
        two_groups: those who see and those who choose are groups of their own, with observations of their own size.
        params: n_agents and n_goals.

    >>> from ctde_kit.recipes import CueTask
    >>> env = CueTask(n_envs=2, params={"n_agents": 3, "n_goals": 4}).build(seed=0, device="cpu")
    >>> env.reset()["agents", "observation"].shape
    torch.Size([2, 3, 5])
    """

    name: str = "communication/cue"
    groups_compete: bool | None = False
    max_steps: int = 4
    two_groups: bool = False
    params: JsonObject = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_params(self.name, self.params, ("n_agents", "n_goals"))

    @property
    def episode_steps(self) -> int:
        return self.max_steps

    def build(self, *, seed: int, device: str, n_envs: int | None = None) -> EnvBase:
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
