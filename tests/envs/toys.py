"""Toy PettingZoo environments whose every number can be computed by hand."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo import AECEnv, ParallelEnv
from tensordict import TensorDictBase

from ctde_kit.envs.workers import WorkerEnv, env_seed, worker_env

WALKERS, BOSSES = ["walker_0", "walker_1", "walker_2"], ["boss_0", "boss_1"]


class ToyEnv(ParallelEnv[str, Any, Any]):
    """Three walkers (4 features, 5 actions) and two bosses (6 features, 7 actions).

    Observation: ``[tag, 10 * agent + step, last action received or -1, ...zeros]``, where ``tag`` is drawn at every
    reset from the env's own stream. Reward: ``100 * step + agent``. ``ends`` has the step and the way in which agents
    end ("terminated", "truncated", "both", "vanishes", or "goes on": flagged once, and not obeyed); ``late`` has an
    agent that is not there before a step. With ``masks``, agent ``i`` may not do action ``(step + i) % n`` (walkers say
    so in the observation, bosses in the info) and a masked action raises; with ``strict``, so does an action of an
    agent that is not there.
    """

    def __init__(
        self,
        ends: Mapping[str, tuple[int, str]] | None = None,
        limit: int | None = None,
        masks: bool = False,
        late: tuple[str, int] | None = None,
        strict: bool = True,
        continuous: bool = False,
    ) -> None:
        self.metadata = {"name": "toy"}
        self.possible_agents = [*WALKERS, *BOSSES]
        self.agents: list[str] = []
        self.ends, self.limit, self.masks, self.late, self.strict = ends or {}, limit, masks, late, strict
        self.continuous = continuous
        self.rng = np.random.default_rng()
        self.episode = -1

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        box = spaces.Box(-np.inf, np.inf, (4 if agent in WALKERS else 6,), np.float32)
        if self.masks and agent in WALKERS:
            return spaces.Dict({"observation": box, "action_mask": spaces.Box(0, 1, (5,), np.int8)})
        return box

    def action_space(self, agent: str) -> spaces.Space[Any]:
        if self.continuous:
            top = 1.0 + self.possible_agents.index(agent)
            return spaces.Box(-top, top, (2 if agent in WALKERS else 3,), np.float32)
        return spaces.Discrete(5 if agent in WALKERS else 7)

    def _allowed(self, agent: str) -> np.ndarray:
        space = self.action_space(agent)
        assert isinstance(space, spaces.Discrete)
        allowed = np.ones(int(space.n), np.int8)
        allowed[(self.time + self.possible_agents.index(agent)) % int(space.n)] = 0
        return allowed

    def _observe(self, agent: str, action: float) -> Any:
        observation = np.zeros(4 if agent in WALKERS else 6, np.float32)
        observation[:3] = self.tag, 10 * self.possible_agents.index(agent) + self.time, action
        if self.masks and agent in WALKERS:
            return {"observation": observation, "action_mask": self._allowed(agent)}
        return observation

    def _info(self, agent: str) -> dict[str, Any]:
        return {"action_mask": self._allowed(agent)} if self.masks and agent in BOSSES else {}

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.tag, self.time = int(self.rng.integers(1, 10_000)), 0
        self.agents = [agent for agent in self.possible_agents if self.late is None or agent != self.late[0]]
        return {agent: self._observe(agent, -1) for agent in self.agents}, {a: self._info(a) for a in self.agents}

    def step(
        self, actions: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, float], dict[str, bool], dict[str, bool], dict[str, Any]]:
        if self.strict and set(actions) != set(self.agents):
            raise ValueError(f"expected actions of {self.agents}, found {list(actions)}")
        for agent in self.agents:
            if self.masks and not self._allowed(agent)[actions[agent]]:
                raise ValueError(f"{agent} did what it may not")
        self.time += 1
        ways = {agent: way for agent, (step, way) in self.ends.items() if step == self.time}
        there = [agent for agent in self.agents if ways.get(agent) != "vanishes"]
        out = self.limit is not None and self.time >= self.limit
        terminations = {agent: ways.get(agent) in ("terminated", "both", "goes on") for agent in there}
        truncations = {a: ways.get(a) in ("truncated", "both") or (out and not terminations[a]) for a in there}
        actions = {agent: np.ravel(actions.get(agent, 0))[0] for agent in there}
        observations = {agent: self._observe(agent, actions[agent]) for agent in there}
        rewards = {agent: float(100 * self.time + self.possible_agents.index(agent)) for agent in there}
        infos = {agent: self._info(agent) for agent in there}
        self.agents = [a for a in there if not (terminations[a] or truncations[a]) or ways.get(a) == "goes on"]
        if self.late is not None and self.time == self.late[1]:
            self.agents.append(self.late[0])
            observations[self.late[0]] = self._observe(self.late[0], -1)
            infos[self.late[0]] = self._info(self.late[0])
        return observations, rewards, terminations, truncations, infos

    def state(self) -> np.ndarray:
        return np.array([self.tag, self.time], np.float64)


class TurnEnv(AECEnv[str, Any, Any]):
    """Players in turn, who count to ``last``, where all end in the way ``way`` ("terminated" or "truncated").

    With each of player 0's moves, it gets +1 and everyone else -1. Observation: ``[moves, player, last action or -1]``.
    ``out`` has the number of moves after which a player ends. With ``masks``, the player on turn may not do action
    ``moves % 3`` and a masked action raises; nobody else may do anything, as in PettingZoo's own games.
    """

    def __init__(
        self,
        last: int = 5,
        players: int = 2,
        masks: bool = False,
        out: Mapping[str, int] | None = None,
        way: str = "terminated",
        actions: spaces.Space[Any] | None = None,
    ) -> None:
        super().__init__()
        self.metadata = {"name": "turns", "is_parallelizable": False}
        self.possible_agents, self.last_step = [f"player_{index}" for index in range(players)], last
        self.masks, self.out, self.way, self.actions = masks, out or {}, way, actions or spaces.Discrete(3)
        self.render_mode = None

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        box = spaces.Box(-1, np.inf, (3,), np.float32)
        mask = spaces.Box(0, 1, (3,), np.int8)
        return spaces.Dict({"observation": box, "action_mask": mask}) if self.masks else box

    def action_space(self, agent: str) -> spaces.Space[Any]:
        return self.actions

    def _allowed(self, agent: str) -> np.ndarray:
        return ((np.arange(3) != self.time % 3) & (agent == self.agent_selection)).astype(np.int8)

    def observe(self, agent: str) -> Any:
        observation = np.array([self.time, self.possible_agents.index(agent), self.action], np.float32)
        return {"observation": observation, "action_mask": self._allowed(agent)} if self.masks else observation

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        self.agents, self.time, self.action = self.possible_agents[:], 0, -1
        self.terminations, self.truncations = dict.fromkeys(self.agents, False), dict.fromkeys(self.agents, False)
        self.rewards, self._cumulative_rewards = dict.fromkeys(self.agents, 0.0), dict.fromkeys(self.agents, 0.0)
        self.infos = {agent: {} for agent in self.agents}
        self.agent_selection = self.agents[0]

    def step(self, action: Any) -> None:
        mover = self.agent_selection
        if self.terminations[mover] or self.truncations[mover]:
            return self._was_dead_step(action)
        if self.masks and not self._allowed(mover)[action]:
            raise ValueError(f"{mover} did what it may not")
        first = mover == "player_0"
        self.rewards = {agent: (1.0 if agent == "player_0" else -1.0) if first else 0.0 for agent in self.agents}
        self._accumulate_rewards()
        self.time, self.action = self.time + 1, int(np.ravel(action)[0])
        ends = {agent: self.time in (self.last_step, self.out.get(agent)) for agent in self.agents}
        if self.way == "terminated":
            self.terminations = ends
        else:
            self.truncations = ends
        place = self.agents.index(mover) + 1
        rest = [agent for agent in self.agents[place:] + self.agents[:place] if not ends[agent]]
        self.agent_selection = rest[0] if rest else mover
        self._deads_step_first()
        return None


# --- what the tests of worker envs share

Make = Callable[..., WorkerEnv]


def make_and_close() -> Iterator[Make]:
    """For a fixture: ``worker_env`` with 4 envs in 2 processes, closed at the end."""
    made: list[WorkerEnv] = []

    def build(factory: Callable[[], Any], **kwargs: Any) -> WorkerEnv:
        settings: dict[str, Any] = {"n_envs": 4, "n_workers": 2, "seed": 7}
        made.append(worker_env(factory, **(settings | kwargs)))
        return made[-1]

    yield build
    for env in made:
        env.close()
    assert not multiprocessing.active_children()


def actions(env: WorkerEnv, walker: int = 1, boss: int = 2) -> Any:
    """Every walker does ``walker``, every boss ``boss``."""
    data = env.full_action_spec.zero()
    data["walker", "action"] += walker
    data["boss", "action"] += boss
    return data


def step(env: WorkerEnv, data: TensorDictBase, **kwargs: int) -> Any:
    """The ``next`` of one step."""
    return env.step(data.copy().update(actions(env, **kwargs)))["next"].clone()


def tags(seed: int, epoch: int, index: int, n: int) -> list[int]:
    """The tags of an env's first ``n`` episodes."""
    rng = np.random.default_rng(env_seed(seed, epoch, index))
    return [int(rng.integers(1, 10_000)) for _ in range(n)]


def flags(data: Any, name: str) -> list[int]:
    """A flag of the five agents of env 0."""
    return [int(flag) for group in ("walker", "boss") for flag in data[group, name][0].flatten()]
