"""Small VMAS scenarios of our own, as a user would write them."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor
from vmas.simulator.core import Agent, Line, World
from vmas.simulator.scenario import BaseScenario


class Drift(BaseScenario):
    """Two agents on a line; an episode ends once the first is past 1. Rewards are written through masks."""

    def make_world(self, batch_dim: int, device: torch.device, **kwargs: Any) -> World:
        self.noise = kwargs.pop("noise", 0.0)
        world = World(batch_dim, device, substeps=1, collision_force=0)
        for i in range(2):
            world.add_agent(Agent(name=f"agent_{i}", collide=False, u_multiplier=2.0))
        self.hits = torch.zeros(batch_dim, device=device)
        return world

    def reset_world_at(self, env_index: int | None = None) -> None:
        for agent in self.world.agents:
            shape = (1, 2) if env_index is not None else (self.world.batch_dim, 2)
            agent.set_pos(torch.rand(shape, device=self.world.device) - 0.5, batch_index=env_index)
        if env_index is None:
            self.hits = torch.zeros_like(self.hits)
        else:
            self.hits[env_index] = 0

    def reward(self, agent: Agent) -> Tensor:
        reward = agent.state.pos[:, 0].clone()
        left = agent.state.pos[:, 0] < 0
        reward[left] -= 1
        reward[left] += agent.state.pos[left].norm(dim=-1)
        self.hits[agent.state.pos[:, 1] > 0] += 1
        return reward + self.noise * torch.randn_like(reward)

    def observation(self, agent: Agent) -> Tensor:
        return torch.cat([agent.state.pos, agent.state.vel, self.hits.unsqueeze(-1)], -1)

    def done(self) -> Tensor:
        return self.world.agents[0].state.pos[:, 0] > 1


class Counting(Drift):
    """Counts its steps in Python."""

    def make_world(self, batch_dim: int, device: torch.device, **kwargs: Any) -> World:
        self.count = 0
        return super().make_world(batch_dim, device, **kwargs)

    def reward(self, agent: Agent) -> Tensor:
        self.count += 1
        return super().reward(agent)


class Branching(Drift):
    """Rewards all envs by what the first does."""

    def reward(self, agent: Agent) -> Tensor:
        if agent.state.pos[0, 0] > 0:
            return super().reward(agent)
        return agent.state.pos[:, 1]


class Rolling(Drift):
    """Draws from Python's generator."""

    def reward(self, agent: Agent) -> Tensor:
        return super().reward(agent) + random.random()


class Whole(Drift):
    """One tensor for the whole batch, drawn anew by a reset."""

    def reset_world_at(self, env_index: int | None = None) -> None:
        super().reset_world_at(env_index)
        if env_index is None:
            self.wind = torch.rand(2)

    def reward(self, agent: Agent) -> Tensor:
        return super().reward(agent) + self.wind[0]


class Ends(BaseScenario):
    """Two lines end to end, ``gaps`` apart, one per env."""

    def make_world(self, batch_dim: int, device: torch.device, **kwargs: Any) -> World:
        self.gaps = torch.tensor(kwargs.pop("gaps"), device=device)
        world = World(batch_dim, device, substeps=2, collision_force=100)
        for i in range(2):
            world.add_agent(Agent(name=f"agent_{i}", shape=Line(length=0.5), mass=1.0))
        return world

    def reset_world_at(self, env_index: int | None = None) -> None:
        gaps = self.gaps if env_index is None else self.gaps[env_index].unsqueeze(0)
        for agent, side in zip(self.world.agents, (-1, 1), strict=True):
            position = torch.stack([side * (0.25 + gaps / 2), torch.zeros_like(gaps)], -1)
            agent.set_pos(position if env_index is None else position[0], batch_index=env_index)

    def reward(self, agent: Agent) -> Tensor:
        return agent.state.vel[:, 0]

    def observation(self, agent: Agent) -> Tensor:
        return torch.cat([agent.state.pos, agent.state.vel], -1)
