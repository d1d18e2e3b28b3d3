"""Level-based foraging as a task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctde_kit.recipes.configs.tasks.task import Renderer, TaskConfig, worker_renderer

if TYPE_CHECKING:
    from torchrl.envs import EnvBase


@dataclass
class LbfTask(TaskConfig):
    """Level-based foraging, many environments side by side in worker processes.

    Args:
        name: of the task.
        n_envs: environments in the batch.
        groups_compete: null, since there is one group.
        env_id: as lbforaging registers it.
        n_workers: processes; null for one per core that may be used.
        worker_timeout: seconds after which a worker that does not come back from one environment is given up.
        max_steps: steps per episode.

    >>> from ctde_kit.recipes import LbfTask
    >>> env = LbfTask(n_envs=2, n_workers=1).build(seed=0, device="cpu")
    >>> env.reset()["agents", "observation"].shape
    torch.Size([2, 2, 12])
    >>> env.close()
    """

    name: str = "lbf/foraging_8x8_2p_2f_coop"
    env_id: str = "Foraging-8x8-2p-2f-coop-v3"
    n_workers: int | None = None
    worker_timeout: float = 60.0
    max_steps: int = 50

    @property
    def episode_steps(self) -> int:
        return self.max_steps

    def build(self, *, seed: int, device: str, n_envs: int | None = None) -> EnvBase:
        from ctde_kit.envs.lbf import lbf_parallel_env
        from ctde_kit.envs.workers import worker_env

        lbf_parallel_env(self.env_id)
        return worker_env(
            lambda: lbf_parallel_env(self.env_id, self.max_steps),
            n_envs=n_envs or self.n_envs,
            n_workers=self.n_workers,
            worker_timeout=self.worker_timeout,
            seed=seed,
            device=device,
        )

    def evaluation_envs(self, episodes: int) -> int:
        return min(episodes, self.n_envs)

    def renderer(self, env: EnvBase) -> Renderer:
        return worker_renderer(env)

    def action_meaning(self, env: EnvBase, group: str, agent: int) -> str:
        return "none, north, south, west, east, load"
