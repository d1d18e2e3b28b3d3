"""VMAS scenarios as tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import ctde_kit as ck
from ctde_kit.files import JsonObject
from ctde_kit.recipes.configs.checks import PATH
from ctde_kit.recipes.configs.own_modules import imported, source
from ctde_kit.recipes.configs.tasks.naming_params import defaults_in, naming_params
from ctde_kit.recipes.configs.tasks.task import Renderer, TaskConfig, chosen_actions

if TYPE_CHECKING:
    from torchrl.envs import EnvBase
    from vmas.simulator.scenario import BaseScenario


@dataclass
class VmasTask(TaskConfig):
    """A VMAS scenario, many environments as one batch of tensors.

    Args:
        name: of the task, ``vmas/{scenario}``.
        n_envs: environments in the batch.
        groups_compete: report returns per group only; null where there is one group.
        scenario: null for the one that VMAS ships by that name, or your own, MODULE:CLASS or FILE.py:CLASS; a function
            that gives a scenario will do, too.
        max_steps: steps per episode.
        continuous_actions: continuous or discrete actions; null for what the recipe needs, else continuous.
        params: the scenario's own arguments.

    >>> from ctde_kit.recipes import VmasTask
    >>> env = VmasTask("vmas/navigation", n_envs=2, params={"n_agents": 3}).build(seed=0, device="cpu")
    >>> env.reset()["agents", "observation"].shape
    torch.Size([2, 3, 18])
    """

    name: str = "vmas/navigation"
    scenario: str | None = field(default=None, metadata=PATH)
    max_steps: int = 100
    continuous_actions: bool | None = None
    params: JsonObject = field(default_factory=dict)

    @property
    def continuous(self) -> bool:
        return self.continuous_actions is not False

    @property
    def episode_steps(self) -> int:
        return self.max_steps

    def with_actions(self, *, continuous: bool | None) -> VmasTask:
        return chosen_actions(self, continuous is not False)

    def build(self, *, seed: int, device: str, n_envs: int | None = None) -> EnvBase:
        return self._build(seed, device, n_envs or self.n_envs, info=False)

    def build_evaluation(self, *, seed: int, device: str, episodes: int) -> EnvBase:
        """The evaluation env, whose ``info`` entries hold what the scenario reports of each agent."""
        return self._build(seed, device, self.evaluation_envs(episodes), info=True)

    def _build(self, seed: int, device: str, n_envs: int, info: bool) -> EnvBase:
        with naming_params(self.name, self.params, self._defaults):
            return ck.VmasEnv(
                self._scenario(),
                num_envs=n_envs,
                max_steps=self.max_steps,
                continuous_actions=self.continuous,
                seed=seed,
                device=device,
                info=info,
                scenario_kwargs=self.params,
            )

    def _defaults(self) -> dict[str, object]:
        """The values that the scenario gives its arguments itself, where its source says so."""
        from ctde_kit.envs.vmas.scenario_arguments import load_scenario

        return defaults_in(Path(type(load_scenario(self._scenario())).make_world.__code__.co_filename))

    def _scenario(self) -> str | BaseScenario | type[BaseScenario]:
        if self.scenario is None:
            return self.name.split("/", 1)[-1]
        named = imported(self.scenario, f"task.scenario={self.scenario}")
        scenario: BaseScenario | type[BaseScenario] = named
        make: Callable[[], BaseScenario] = named
        return make() if callable(named) and not isinstance(named, type) else scenario

    def own_code(self) -> dict[str, Path]:
        """The scenario's file or package, where it is the user's own."""
        return {} if self.scenario is None else {self.scenario: source(self.scenario, f"task.scenario={self.scenario}")}

    def renderer(self, env: EnvBase) -> Renderer:
        from ctde_kit.envs.vmas.rendering import render_frame

        base_env = env.base_env
        assert isinstance(base_env, ck.VmasEnv)
        return lambda env_index=0: render_frame(base_env.simulation.world, env_index)

    def evaluation_envs(self, episodes: int) -> int:
        return min(episodes, 1000)

    def action_meaning(self, env: EnvBase, group: str, agent: int) -> str:
        base_env = env.base_env
        assert isinstance(base_env, ck.VmasEnv)
        names = base_env.group_map[group]
        own = next(other for other in base_env.world.agents if other.name == names[agent])
        dynamics = type(own.dynamics).__name__
        controls = "forces along x and y" if dynamics == "Holonomic" else f"the controls of VMAS's {dynamics} dynamics"
        if self.continuous:
            return f"{controls} in VMAS's units, before the scenario's multiplier; the agent's communication follows"
        return f"a choice of nothing, backwards, forwards for each of {controls}, the last changing fastest"
