"""One environment of a worker process, and its rows of the shared block: numpy only, since a step is ~100 us."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from gymnasium import spaces

from ctde_kit.capability import Capability
from ctde_kit.envs.pettingzoo.aec import AnyParallelEnv, Entries
from ctde_kit.envs.workers.agent_row import ACTION_MASK, AgentRow, ObservationReader
from ctde_kit.envs.workers.block_layout import (
    SEED,
    AgentDescription,
    Block,
    BlockLayout,
    EnvDescription,
    last_key,
)
from ctde_kit.errors import UserError
from ctde_kit.keys import DONE, STATE, TERMINATED, TRUNCATED


@runtime_checkable
class TakesTurns(Capability, Protocol):
    """An environment whose agents may act one after the other, such as ``AECAsParallel``."""

    @property
    def turn_based(self) -> bool:
        """Whether agents act in turn; else all act at every step."""
        ...

    @property
    def acting_agents(self) -> list[str]:
        """The agents whose actions the next ``step`` takes."""
        ...


@runtime_checkable
class NamesGroups(Capability, Protocol):
    """An environment that says which agents form a group, such as ``LBFParallelEnv``."""

    @property
    def group_map(self) -> dict[str, list[str]]:
        """The names of each group's agents."""
        ...


def describe(env: AnyParallelEnv) -> EnvDescription:
    """What the parent needs to know of ``env`` before it makes the block; resets ``env`` once.

    Every agent of a turn-based environment has an action mask, which allows action 0 alone while it is not on turn.

    Raises ``UserError`` for an action space that is not ``Discrete``, ``MultiDiscrete`` or a ``Box`` of floats, for a
    ``Box`` where agents act in turn, and for an environment's action masks of actions that are not ``Discrete``.
    """
    _, infos = env.reset()
    turn_based = isinstance(env, TakesTurns) and env.turn_based
    agents = {}
    for agent in env.possible_agents:
        reader, action_space = ObservationReader(env.observation_space(agent)), env.action_space(agent)
        if not isinstance(action_space, spaces.Discrete | spaces.MultiDiscrete | spaces.Box):
            raise UserError(
                f"action_space of {agent!r}: expected Discrete, MultiDiscrete or Box, found {action_space}; wrap the "
                "environment"
            )
        if isinstance(action_space, spaces.Box) and not np.issubdtype(action_space.dtype, np.floating):
            raise UserError(
                f"action_space of {agent!r}: expected a Box of floats, found {action_space}; wrap the environment so "
                "that whole numbers are Discrete or MultiDiscrete"
            )
        masked = reader.has_action_mask or ACTION_MASK in infos.get(agent, {})
        if masked and not isinstance(action_space, spaces.Discrete):
            raise UserError(f"action_mask of {agent!r}: expected a Discrete action space, found {action_space}")
        if turn_based and isinstance(action_space, spaces.Box):
            raise UserError(
                f"action_space of {agent!r}: expected Discrete or MultiDiscrete where agents act in turn, found "
                f"{action_space}; wrap the environment so that its actions are discrete"
            )
        agents[agent] = AgentDescription(reader.shape, action_space, masked or turn_based, reader.own)
    group_map = env.group_map if isinstance(env, NamesGroups) else None
    return EnvDescription(agents, _state_shape(env), turn_based, group_map)


def _state_shape(env: AnyParallelEnv) -> tuple[int, ...] | None:
    # Some environments keep an attribute of that name for themselves.
    if not callable(getattr(env, "state", None)):
        return None
    try:
        return read_state(env).shape
    except (NotImplementedError, AttributeError):
        return None


def read_state(env: AnyParallelEnv) -> np.ndarray:
    """The global state; the entries of a dictionary one after the other, in its order."""
    state: Any = env.state()
    if isinstance(state, np.ndarray):
        return state
    if isinstance(state, Mapping):
        state = np.concatenate([np.ravel(entry) for entry in cast("Mapping[str, Any]", state).values()])
    return np.asarray(state)


class EnvRow:
    """One environment and its row of the block; the rules are those of :class:`~ctde_kit.envs.workers.WorkerEnv`."""

    def __init__(self, index: int, env: AnyParallelEnv, layout: BlockLayout, block: Block) -> None:
        self.index, self._env, self._max_steps = index, env, layout.max_steps
        self._turns = env if isinstance(env, TakesTurns) and env.turn_based else None
        self._agents = [
            AgentRow(index, position, agent, group, env, block, layout.infos)
            for group in layout.groups
            for position, agent in enumerate(group.agents)
        ]
        self._alive: list[AgentRow] = []
        self._steps, self._finished = 0, True
        self._seed = block[SEED]
        self._done, self._terminated, self._truncated = (block[name][index] for name in (DONE, TERMINATED, TRUNCATED))
        self._state = block[STATE][index] if STATE in block else None
        self._entries = [(block[key][index], block[last_key(key)][index]) for key in layout.read()]
        self._ended = block[last_key(DONE)][index]

    def reset(self) -> None:
        """Start an episode: from the seed in the block, or on the env's own random stream."""
        seed = int(self._seed[self.index])
        if seed >= 0:
            # For environments that draw from the global generators, against PettingZoo's contract.
            random.seed(seed)
            np.random.seed(seed)
        observations, infos = self._env.reset(seed=seed if seed >= 0 else None)
        self._steps, self._finished = 0, False
        present = set(self._env.agents)
        for row in self._agents:
            row.alive, row.gone = row.agent in present, False
            row.write(observations.get(row.agent) if row.alive else None, 0.0, False, False)
        self._alive = [row for row in self._agents if row.alive]
        self._done[0] = self._terminated[0] = self._truncated[0] = False
        self._write_masks(self._alive, observations, infos)
        self._write_state()

    def step(self) -> None:
        """One step; an episode that is over stays as it is, with rewards of zero."""
        if self._finished:
            for row in self._agents:
                row.clear_reward()
            return
        actions = {row.agent: row.action() for row in self._acting()}
        observations, rewards, terminations, truncations, infos = self._env.step(actions)
        self._steps += 1
        present, before = set(self._env.agents), self._alive
        for row in self._agents:
            agent = row.agent
            if row.ended or not (row.alive or agent in present):
                if row.gone and agent in present:
                    raise ValueError(f"{agent!r} came back after its end; keep it in the episode, its actions masked")
                row.gone = row.ended and agent not in present
                if agent in present and row.ended and not (terminations.get(agent) or truncations.get(agent)):
                    row.went_on[0] = True
                row.clear()
                continue
            truncated = bool(truncations.get(agent, False))
            terminated = bool(terminations.get(agent, False)) or (agent not in present and not truncated)
            row.write(observations.get(agent), rewards.get(agent, 0.0), terminated, truncated)
            row.alive = not (terminated or truncated)
            row.gone = not row.alive and agent not in present
        self._alive = [row for row in self._agents if row.alive]
        there = self._write_end(before)
        self._write_masks(there, observations, infos)
        self._write_state()

    def keep_last(self) -> bool:
        """Whether the episode is over; if so, what its last step wrote is also kept where a reset leaves it."""
        self._ended[0] = self._finished
        if self._finished:
            for entry, last in self._entries:
                last[...] = entry
        return self._finished

    def _write_end(self, before: list[AgentRow]) -> list[AgentRow]:
        """Write whether the episode is over; return the agents that count in this observation."""
        done, cut = not self._alive, self._steps == self._max_steps
        if cut:
            for row in self._alive:
                row.write_flags(terminated=False, truncated=True)
        self._finished = done or cut
        terminated = done and all(row.terminated for row in before)
        self._done[0], self._terminated[0] = self._finished, terminated
        self._truncated[0] = self._finished and not terminated
        # Agents that a time limit stopped are still there in the last observation: their value is bootstrapped.
        return [row for row in before if not row.terminated] if done else self._alive

    def _acting(self) -> list[AgentRow]:
        if self._turns is None:
            return self._alive
        turns = self._turns.acting_agents
        return [row for row in self._alive if row.agent in turns]

    def _write_masks(self, there: list[AgentRow], observations: Entries, infos: Entries) -> None:
        acting = self._acting()
        for row in self._agents:
            row.write_masks(row in there, row in acting, observations.get(row.agent), infos.get(row.agent))
            row.info.write(row.agent, infos.get(row.agent))

    def _write_state(self) -> None:
        if self._state is None:
            return
        state = read_state(self._env)
        if state.size != self._state.size:
            raise ValueError(f"expected a state of {self._state.size} numbers, found shape {state.shape}")
        self._state[...] = state if state.shape == self._state.shape else state.reshape(self._state.shape)
