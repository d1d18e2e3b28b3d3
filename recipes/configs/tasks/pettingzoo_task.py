"""PettingZoo environments as tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ctde_kit.errors import UserError
from ctde_kit.files import JsonObject
from ctde_kit.recipes.configs.checks import PATH
from ctde_kit.recipes.configs.own_modules import imported, source
from ctde_kit.recipes.configs.tasks.naming_params import naming_params
from ctde_kit.recipes.configs.tasks.task import Renderer, TaskConfig, chosen_actions, worker_renderer

if TYPE_CHECKING:
    from torchrl.envs import EnvBase

# Environments of other families have one kind of action and take no such argument.
WITH_BOTH_KINDS_OF_ACTION = ("mpe2",)


@dataclass
class PettingZooTask(TaskConfig):
    """A PettingZoo environment, many side by side in worker processes.

    Args:
        name: of the task.
        n_envs: environments in the batch.
        groups_compete: report returns per group only; null where there is one group.
        env: family and module, such as mpe2/simple_spread_v3 or sisl/multiwalker_v9; or your own, MODULE:FUNCTION or
            FILE.py:FUNCTION, which builds one.
        n_workers: processes; null for one per core that may be used.
        worker_timeout: seconds after which a worker that does not come back from one environment is given up.
        max_steps: steps after which an episode is truncated; null for the environment's own limit.
        continuous_actions: for environments that offer both kinds; null for what the recipe needs, else discrete.
        return_state: write the env's global state; null: write it where the env has one.
        infos: names of numbers that the environment reports of its agents, such as success; evaluations keep them.
        params: the environment's own arguments.

    >>> from ctde_kit.recipes import PettingZooTask
    >>> task = PettingZooTask(env="mpe2/simple_spread_v3", n_envs=2, n_workers=1, params={"N": 3})
    >>> env = task.build(seed=0, device="cpu")
    >>> env.reset()["agent", "observation"].shape
    torch.Size([2, 3, 18])
    >>> env.close()
    """

    name: str = "pettingzoo/simple_spread"
    env: str = field(default="mpe2/simple_spread_v3", metadata=PATH)
    n_workers: int | None = None
    worker_timeout: float = 60.0
    max_steps: int | None = None
    continuous_actions: bool | None = None
    return_state: bool | None = None
    infos: list[str] = field(default_factory=list)
    params: JsonObject = field(default_factory=dict)

    @property
    def continuous(self) -> bool | None:
        return self.continuous_actions

    @property
    def episode_steps(self) -> int | None:
        return self.max_steps

    def with_actions(self, *, continuous: bool | None) -> PettingZooTask:
        offers_both = self.env.partition("/")[0] in WITH_BOTH_KINDS_OF_ACTION
        return chosen_actions(self, continuous is True) if offers_both else self

    def build(self, *, seed: int, device: str, n_envs: int | None = None) -> EnvBase:
        return self._build(seed, device, n_envs or self.n_envs, infos=[])

    def build_evaluation(self, *, seed: int, device: str, episodes: int) -> EnvBase:
        """The evaluation env, which also has what the environment reports of each agent under ``infos``."""
        return self._build(seed, device, self.evaluation_envs(episodes), infos=self.infos)

    def _build(self, seed: int, device: str, n_envs: int, infos: list[str]) -> EnvBase:
        from ctde_kit.envs.workers import worker_env

        params = dict(self.params)
        if self.continuous_actions is not None:
            params["continuous_actions"] = self.continuous_actions
        with naming_params(self.name, self.params):
            return worker_env(
                self._factory(params),
                n_envs=n_envs,
                n_workers=self.n_workers,
                worker_timeout=self.worker_timeout,
                max_steps=self.max_steps,
                seed=seed,
                return_state=self.return_state,
                flatten=True,
                infos=infos,
                device=device,
            )

    def _factory(self, params: JsonObject) -> Callable[[], object]:
        from ctde_kit.envs.pettingzoo import pettingzoo_factory

        if ":" not in self.env:
            return pettingzoo_factory(self.env, **params)
        # Imported here, so that what is wrong with it is said before there are workers.
        return partial(imported(self.env, f"task.env={self.env}"), **params)

    def own_code(self) -> dict[str, Path]:
        """The function's file or package; of an environment in a package of the user's own, that package."""
        if ":" in self.env:
            return {self.env: source(self.env, f"task.env={self.env}")}
        from ctde_kit.envs.pettingzoo import own_package

        package = own_package(self.env)
        return {} if package is None else {self.env: package}

    def evaluation_envs(self, episodes: int) -> int:
        return min(episodes, self.n_envs)

    def build_rendered(self, *, seed: int, device: str, episodes: int) -> EnvBase:
        drawing = replace(self, params={**self.params, "render_mode": "rgb_array"})
        try:
            return drawing.build_evaluation(seed=seed, device=device, episodes=episodes)
        except UserError as error:
            # Such as "unexpected keyword argument", or "takes no arguments" of a class without an __init__.
            if "task.params.render_mode=" not in str(error) or "TypeError" not in str(error):
                raise
            raise UserError(
                f"task.env={self.env}: to be drawn, the environment must take render_mode in its __init__ (or in the "
                "function that builds it), which is given 'rgb_array', and have a render() that returns a picture, "
                "uint8 [H, W, 3]; add both, or leave pictures out"
            ) from error

    def renderer(self, env: EnvBase) -> Renderer:
        return worker_renderer(env)
