"""A scenario to which tests add what it keeps, and what they do with its env."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor
from vmas.simulator.core import Agent, Landmark, World
from vmas.simulator.scenario import BaseScenario

from ctde_kit.envs.vmas import VmasEnv

N_ENVS = 3


class Keeping(BaseScenario):
    """Two agents that stand, and three landmarks; what a test adds is kept in the scenario."""

    def make_world(self, batch_dim: int, device: torch.device, **kwargs: Any) -> World:
        world = World(batch_dim, device)
        for name in ("a", "b"):
            world.add_agent(Agent(name))
        for name in ("x", "y", "z"):
            world.add_landmark(Landmark(name))
        self.prepare(world)
        return world

    def reset_world_at(self, env_index: int | None = None) -> None:
        n_envs = self.world.batch_dim if env_index is None else 1
        for entity in self.world.entities:
            entity.set_pos(torch.zeros(n_envs, 2), batch_index=env_index)
        self.begin(env_index)

    def observation(self, agent: Agent) -> Tensor:
        return agent.state.pos

    def reward(self, agent: Agent) -> Tensor:
        if agent is self.world.agents[0]:
            self.advance()
        return self.seen(agent).float()

    def prepare(self, world: World) -> None: ...

    def begin(self, env_index: int | None) -> None: ...

    def advance(self) -> None: ...

    def seen(self, agent: Agent) -> Tensor:
        return torch.zeros(self.world.batch_dim)


def build(scenario: type[Keeping], seed: int = 0) -> VmasEnv:
    env = VmasEnv(scenario, num_envs=N_ENVS, seed=seed)
    env.reset()
    return env


def rewards(env: VmasEnv, steps: int = 1) -> list[list[float]]:
    """By env and agent, after so many steps."""
    step = env.step(env.full_action_spec.zero())
    for _ in range(steps - 1):
        step = env.step(env.full_action_spec.zero())
    return step["next", "agents", "reward"][..., 0].tolist()


def reset_first(env: VmasEnv) -> None:
    mask = torch.arange(N_ENVS).reshape(-1, 1) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env.reset(env.full_done_spec.zero().set("_reset", mask))
