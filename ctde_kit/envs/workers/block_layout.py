"""Where each entry lies in the memory that a worker env shares with its processes."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import IO, Any

import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete, Space

from ctde_kit.envs.transforms.flat_vectors import MOST_FEATURES
from ctde_kit.errors import UserError
from ctde_kit.keys import DONE, STATE, TERMINATED, TRUNCATED, GroupKeys, Key

SELECTED = "_selected"
"""``[n_envs]`` bool: the envs that the next command is for."""
SEED = "_seed"
"""``[n_envs]`` int64: the seed of an env's next reset; negative: go on with the env's own random stream."""
WENT_ON = "_went_on"
"""``[n_envs, n_agents]`` bool, in each group: agents that went on after the environment had flagged their end."""
LAST = "_last"
"""Before the key of an entry that is read: what the last step of an env's last episode wrote."""
INFO = "info"
REPORTED = "_reported"
"""``[n_envs, n_infos]`` bool: which of the infos asked for an env has reported of any agent so far."""

_ALIGNMENT = 64
Block = Mapping[Key, np.ndarray]
_Fields = dict[Key, tuple[tuple[int, ...], np.dtype]]


@dataclass(frozen=True)
class AgentDescription:
    """What one agent sees and does.

    Args:
        observation_shape: of its entry of the block.
        action_space: its own, of whatever actions.
        has_action_mask: whether its actions are masked.
        own_observation: its observation as its space has it, in words; empty for a ``float32`` vector.
    """

    observation_shape: tuple[int, ...]
    action_space: Space[Any]
    has_action_mask: bool
    own_observation: str

    @property
    def changes(self) -> list[str]:
        """What its entries of the block are where they differ from its own spaces, in words."""
        changes: list[str] = []
        if self.own_observation:
            changes.append(f"observation: {self.own_observation} as {prod(self.observation_shape)} floats")
        space = self.action_space
        if isinstance(space, Discrete) and space.start:
            changes.append(f"action: numbers from {space.start} as numbers from 0")
        elif not isinstance(space, Discrete) and len(space.shape or ()) != 1:
            changes.append(f"action: {list(space.shape or ())} as a vector of {prod(space.shape or ())}")
        return changes

    @property
    def n_choices(self) -> tuple[int, ...]:
        """How many options each part of a discrete action has; ``()`` for a continuous one."""
        space = self.action_space
        if isinstance(space, Discrete):
            return (int(space.n),)
        return tuple(space.nvec.ravel().tolist()) if isinstance(space, MultiDiscrete) else ()

    @property
    def action_shape(self) -> tuple[int, ...]:
        """The shape of one agent's action in the block: ``()`` for a single choice, else ``(D,)``."""
        return () if isinstance(self.action_space, Discrete) else (prod(self.action_space.shape or ()),)

    @property
    def kind(self) -> tuple[object, ...]:
        """What must be equal for two agents to share a group; bounds of actions and observations may differ."""
        space = self.action_space
        size: object = self.n_choices or space.dtype
        return (self.observation_shape, type(space), space.shape, size, self.has_action_mask)


@dataclass(frozen=True)
class EnvDescription:
    """What a worker says about an environment before the shared block exists."""

    agents: dict[str, AgentDescription]
    state_shape: tuple[int, ...] | None
    turn_based: bool
    group_map: dict[str, list[str]] | None


def flat_shape(name: str, shape: tuple[int, ...]) -> tuple[int]:
    """The shape of the same entry as a vector; raises ``UserError`` for a picture, which no network is made for."""
    if prod(shape) > MOST_FEATURES:
        raise UserError(
            f"{name}: expected at most {MOST_FEATURES} features, found shape {list(shape)}, {prod(shape)} of them; "
            "make it smaller with a wrapper of the environment, or leave it out"
        )
    return (prod(shape),)


def flat_description(description: EnvDescription) -> EnvDescription:
    """The same environment, whose agents observe vectors."""
    agents = {
        agent: replace(seen, observation_shape=flat_shape(f"observation of {agent!r}", seen.observation_shape))
        for agent, seen in description.agents.items()
    }
    return replace(description, agents=agents)


@dataclass(frozen=True)
class GroupLayout:
    """One group: agents whose spaces are of one kind."""

    name: str
    agents: dict[str, AgentDescription]

    @property
    def first(self) -> AgentDescription:
        """The agent whose shapes are those of the whole group."""
        return next(iter(self.agents.values()))

    @property
    def changes(self) -> list[str]:
        """What entries of the block are that differ from the agents' own spaces, in words, once each."""
        return [*dict.fromkeys(change for agent in self.agents.values() for change in agent.changes)]

    def written(self, n_envs: int) -> _Fields:
        """Shape and dtype of what the parent writes, the actions, and of what the processes keep for themselves."""
        space, batch = self.first.action_space, (n_envs, len(self.agents))
        action_dtype = space.dtype if isinstance(space, Box) else np.dtype(np.int64)
        return {
            GroupKeys(self.name).action: ((*batch, *self.first.action_shape), np.dtype(action_dtype)),
            (self.name, WENT_ON): (batch, np.dtype(np.bool_)),
        }

    def read(self, n_envs: int, infos: tuple[str, ...] = ()) -> _Fields:
        """Shape and dtype of what the parent reads; ``infos`` are the names of what the environment reports."""
        keys, batch, flag = GroupKeys(self.name), (n_envs, len(self.agents)), np.dtype(np.bool_)
        fields: _Fields = {
            keys.observation: ((*batch, *self.first.observation_shape), np.dtype(np.float32)),
            keys.reward: ((*batch, 1), np.dtype(np.float32)),
            keys.done: ((*batch, 1), flag),
            keys.terminated: ((*batch, 1), flag),
            keys.truncated: ((*batch, 1), flag),
            keys.mask: (batch, flag),
        }
        for name in infos:
            fields[self.name, INFO, name] = ((*batch, 1), np.dtype(np.float32))
        if self.first.has_action_mask:
            fields[keys.action_mask] = ((*batch, sum(self.first.n_choices)), flag)
        return fields


@dataclass(frozen=True)
class BlockLayout:
    """Every entry of a worker env."""

    n_envs: int
    groups: tuple[GroupLayout, ...]
    state_shape: tuple[int, ...] | None
    max_steps: int | None
    infos: tuple[str, ...] = ()

    def read(self) -> _Fields:
        """Shape and dtype of every entry that a step writes and the parent reads."""
        fields: _Fields = {name: ((self.n_envs, 1), np.dtype(np.bool_)) for name in (DONE, TERMINATED, TRUNCATED)}
        if self.state_shape is not None:
            fields[STATE] = ((self.n_envs, *self.state_shape), np.dtype(np.float32))
        for group in self.groups:
            fields |= group.read(self.n_envs, self.infos)
        return fields

    def fields(self) -> _Fields:
        """Shape and dtype of every entry, the processes' own included."""
        fields: _Fields = {
            SELECTED: ((self.n_envs,), np.dtype(np.bool_)),
            SEED: ((self.n_envs,), np.dtype(np.int64)),
        }
        if self.infos:
            fields[REPORTED] = ((self.n_envs, len(self.infos)), np.dtype(np.bool_))
        for group in self.groups:
            fields |= group.written(self.n_envs)
        read = self.read()
        return fields | read | {last_key(key): field for key, field in read.items()}

    @property
    def size(self) -> int:
        """Bytes of the block."""
        return sum(_aligned(shape, dtype) for shape, dtype in self.fields().values())

    def map(self, file: IO[bytes]) -> Block:
        """Views of the block that is ``file``, which must be ``size`` bytes long."""
        memory, offset, block = mmap.mmap(file.fileno(), self.size), 0, {}
        for key, (shape, dtype) in self.fields().items():
            block[key] = np.frombuffer(memory, dtype, count=prod(shape), offset=offset).reshape(shape)
            offset += _aligned(shape, dtype)
        return block


def last_key(key: Key) -> Key:
    """Where the block has what the last step of an env's last episode wrote under ``key``."""
    return (LAST, key) if isinstance(key, str) else (LAST, *key)


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> int:
    return -(-prod(shape) * dtype.itemsize // _ALIGNMENT) * _ALIGNMENT


def group_by_name(agents: Iterable[str]) -> dict[str, list[str]]:
    """TorchRL's default grouping of parallel environments: ``name_INT`` goes to group ``name``, any other agent alone.

    Agents that are numbers, which TorchRL does not take, go to group ``agents``.

    >>> group_by_name(["adversary_0", "agent_0", "agent_1", "referee"])
    {'adversary': ['adversary_0'], 'agent': ['agent_0', 'agent_1'], 'referee': ['referee']}
    """
    groups: dict[str, list[str]] = {}
    for agent in agents:
        name = agent if isinstance(agent, str) else f"agents_{agent}"
        stem, separator, number = name.rpartition("_")
        groups.setdefault(stem if separator and number.isdecimal() else name, []).append(agent)
    return groups


def make_groups(
    description: EnvDescription, group_map: Mapping[str, Iterable[str]] | None = None
) -> tuple[GroupLayout, ...]:
    """The groups of an environment.

    In order of precedence: ``group_map``, the environment's own ``group_map`` attribute, and TorchRL's defaults (one
    group per agent where agents act in turn, else :func:`group_by_name`). A default group whose agents differ in the
    shape of their observations or in the kind of their actions is split: agents of one kind stay together, and each
    part is named after its first agent. A group asked for is never split.

    Raises ``UserError`` where a group map does not name every agent once, or joins agents that differ.
    """
    chosen = group_map if group_map is not None else description.group_map
    if chosen is None:
        by_agent = {str(agent): [agent] for agent in description.agents}
        default = by_agent if description.turn_based else group_by_name(description.agents)
        chosen = {name: agents for group in default.items() for name, agents in _split(*group, description).items()}
    chosen = {name: list(agents) for name, agents in chosen.items()}
    named = sorted((agent for agents in chosen.values() for agent in agents), key=str)
    expected = sorted(description.agents, key=str)
    if named != expected:
        raise UserError(f"group_map: expected every one of {expected} once, found {named}")
    for name, agents in chosen.items():
        if len(_split(name, agents, description)) > 1:
            raise UserError(
                f"group_map: the agents of {name!r} differ in the shape of their observations or in the kind of their "
                "actions; put agents of different kinds into different groups"
            )
    return tuple(GroupLayout(name, {agent: description.agents[agent] for agent in chosen[name]}) for name in chosen)


def _split(name: str, agents: list[str], description: EnvDescription) -> dict[str, list[str]]:
    kinds: dict[tuple[object, ...], list[str]] = {}
    for agent in agents:
        kinds.setdefault(description.agents[agent].kind, []).append(agent)
    parts = list(kinds.values())
    return {name: agents} if len(parts) == 1 else {str(part[0]): part for part in parts}
