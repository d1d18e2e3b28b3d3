"""Compiled steps of scenarios in which two places hold one tensor for a while, or that a first step begins."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from vmas.simulator.core import Agent, World

import ctde_kit as ck
from ctde_kit.collectors import RolloutCollector
from ctde_kit.envs.vmas import VmasEnv
from ctde_kit.graph import TraceError
from tests.envs.vmas.keeping import N_ENVS, Keeping

STEPS = 7


class Moving(Keeping):
    """Agents begin at random places, and forces move them."""

    def begin(self, env_index: int | None) -> None:
        n_envs = self.world.batch_dim if env_index is None else 1
        for agent in self.world.agents:
            agent.set_pos(torch.rand(n_envs, 2), batch_index=env_index)
        self.start(env_index)

    def start(self, env_index: int | None) -> None: ...


class Progress(Moving):
    """How far each agent has moved since the last step; after a step its last position is its position."""

    def start(self, env_index: int | None) -> None:
        for agent in self.world.agents:
            if env_index is None:
                agent.last_pos = torch.zeros(self.world.batch_dim, 2)
            else:
                agent.last_pos = agent.last_pos.index_fill(0, torch.tensor([env_index]), 0.0)

    def seen(self, agent: Agent) -> Tensor:
        moved = (agent.state.pos - agent.last_pos).norm(dim=-1)
        agent.last_pos = agent.state.pos
        return moved


class Delayed(Moving):
    """What an agent sees is some steps old; at first all entries of the line are one tensor."""

    def start(self, env_index: int | None) -> None:
        if env_index is None:
            self.line = deque([torch.zeros(self.world.batch_dim, 2)] * 5, maxlen=5)
        else:
            self.line = deque((row.index_fill(0, torch.tensor([env_index]), 0.0) for row in self.line), maxlen=5)

    def advance(self) -> None:
        self.line.append(self.world.agents[0].state.pos.clone())

    def seen(self, agent: Agent) -> Tensor:
        return self.line[0].sum(-1)


class Records(Moving):
    """The last and the best distance, which differ after a reset, and are one tensor after a step."""

    def start(self, env_index: int | None) -> None:
        n_envs = self.world.batch_dim
        self.last, self.best = torch.zeros(n_envs), torch.full((n_envs,), 9.0)

    def advance(self) -> None:
        distance = self.world.agents[0].state.pos.norm(dim=-1)
        self.given = (self.last - distance) + (self.best - distance)
        self.best = self.last = distance

    def seen(self, agent: Agent) -> Tensor:
        return self.given


class Swapped(Moving):
    """Two tensors that change places, and are written to, in a list that stays."""

    def start(self, env_index: int | None) -> None:
        if env_index is None:
            self.both = [torch.zeros(self.world.batch_dim), torch.full((self.world.batch_dim,), 100.0)]
            self.a, self.b = self.both

    def advance(self) -> None:
        self.a, self.b = self.b, self.a
        self.a += 1

    def seen(self, agent: Agent) -> Tensor:
        return self.both[0] + 2 * self.a


class OneTensor(Moving):
    """A tensor that is written to, always in the same two places."""

    def start(self, env_index: int | None) -> None:
        if env_index is None:
            self.count = self.counts = torch.zeros(self.world.batch_dim)
        else:
            self.count[env_index] = 0

    def advance(self) -> None:
        self.count += 1

    def seen(self, agent: Agent) -> Tensor:
        return self.count + 10 * self.counts


class Lazily(Moving):
    """A sum that the first step creates."""

    def seen(self, agent: Agent) -> Tensor:
        if not hasattr(self, "total"):
            self.total = torch.zeros(self.world.batch_dim)
        self.total = self.total + 1
        return self.total


class FirstPlace(Moving):
    """Where an agent was at the first step."""

    def seen(self, agent: Agent) -> Tensor:
        if not hasattr(agent, "first_pos"):
            agent.first_pos = agent.state.pos.clone()
        return (agent.state.pos - agent.first_pos).norm(dim=-1)


class ByName(Moving):
    """A dictionary whose keys the first step adds."""

    def prepare(self, world: World) -> None:
        self.met: dict[str, Tensor] = {}

    def seen(self, agent: Agent) -> Tensor:
        before = self.met.get(agent.name)
        self.met[agent.name] = agent.state.pos[:, 0] if before is None else before + 1
        return self.met[agent.name]


class Remembered(Moving):
    """What each step makes anew; that the first one creates it does not matter."""

    def advance(self) -> None:
        self.distance = self.world.agents[0].state.pos.norm(dim=-1)

    def seen(self, agent: Agent) -> Tensor:
        return self.distance


SAME = (Progress, Delayed, Records, OneTensor, Remembered)
REFUSED = {
    Swapped: "writes into a tensor that is in several places for a while: env.scenario",
    Lazily: "creates env.scenario.total in its first step",
    FirstPlace: "first_pos in its first step",
    ByName: "in its first step",
}


def rollout(env: VmasEnv, *, resets: bool) -> list[Tensor]:
    """Rewards and observations of some steps, with a full reset between them."""
    actions = torch.rand(STEPS, N_ENVS, 2, 2, generator=torch.Generator().manual_seed(3)) * 2 - 1
    seen, root = [], env.reset()
    for number, action in enumerate(actions):
        if resets and number == STEPS // 2:
            root = env.reset()
        root = env.step(root.set(("agents", "action"), action))["next"]
        seen += [root["agents", "reward"], root["agents", "observation"]]
    return seen


@pytest.mark.parametrize("scenario", [*SAME, *REFUSED])
def test_compiled_steps_are_those_of_the_eager_env(scenario: type[Moving], caplog: pytest.LogCaptureFixture) -> None:
    compiling = VmasEnv(scenario, num_envs=N_ENVS, seed=1, compile_step=True)
    eager = rollout(VmasEnv(scenario, num_envs=N_ENVS, seed=1), resets=True)
    compiled = rollout(compiling, resets=True)
    for one, other in zip(eager, compiled, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    assert compiling.compile_step == (scenario in SAME)
    assert scenario in SAME or REFUSED[scenario] in caplog.text


@pytest.mark.parametrize("scenario", REFUSED)
def test_looking_for_the_state_leaves_nothing_of_the_trial_steps(scenario: type[Moving]) -> None:
    env, looked_at = (VmasEnv(scenario, num_envs=N_ENVS, seed=1) for _ in range(2))
    with pytest.raises(TraceError):
        looked_at.tensor_state  # noqa: B018
    for one, other in zip(rollout(env, resets=False), rollout(looked_at, resets=False), strict=True):
        assert torch.equal(one, other)


# By the agents' positions after an episode's first step `[*B, n_agents, 2]`: the rewards of that step.
FIRST_REWARDS: dict[type[Moving], Callable[[Tensor], Tensor]] = {
    Progress: lambda place: place.norm(dim=-1),
    Records: lambda place: (9 - 2 * place[..., :1, :].norm(dim=-1)).expand(place.shape[:-1]),
    Delayed: lambda place: torch.zeros(place.shape[:-1]),
}


@pytest.mark.parametrize("scenario", FIRST_REWARDS)
def test_compiled_rollouts_are_eager_ones_across_episodes(scenario: type[Moving]) -> None:
    batches = []
    for compiled in (False, True):
        torch.manual_seed(0)
        env = VmasEnv(scenario, num_envs=N_ENVS, seed=1, max_steps=3)
        group = ck.TeamSpec.from_env(env)["agents"]
        network = ck.MultiAgentMLP(group.observation_dim, group.action.n_parameters, n_agents=group.n_agents)
        actor = ck.TeamPolicy({"agents": ck.MultiAgentActor(group, ck.own_observation(group), network)})
        collector = RolloutCollector(env, actor, frames_per_batch=8 * N_ENVS, compile=compiled)
        batches.append(collector.rollout())
        assert collector.compile is compiled
    eager, by_graph = batches
    # Fresh initial states are drawn ahead in a compiled rollout; until the first episode ends all is the same.
    for key in (("next", "agents", "reward"), ("next", "agents", "observation")):
        torch.testing.assert_close(by_graph[key][:, :3], eager[key][:, :3], rtol=0, atol=1e-5)
    for batch in batches:
        begins = batch["agents", "observation"][:, 3:7:3]
        # Agents begin between 0 and 1, and a step from there moves them a little.
        assert ((begins >= 0) & (begins <= 1)).all()
        after = batch["next", "agents", "observation"][:, 3:7:3]
        assert (after - begins).abs().max() < 0.2
        rewards = batch["next", "agents", "reward"][:, 3:7:3, :, 0]
        torch.testing.assert_close(rewards, FIRST_REWARDS[scenario](after), rtol=0, atol=1e-5)
