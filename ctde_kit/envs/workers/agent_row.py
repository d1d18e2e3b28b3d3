"""One agent's entries in one env's row of the shared block."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from ctde_kit.envs.pettingzoo.aec import AnyParallelEnv, AnySpace, Entries
from ctde_kit.envs.workers.block_layout import WENT_ON, Block, GroupLayout
from ctde_kit.envs.workers.info_row import InfoRow
from ctde_kit.keys import GroupKeys

ACTION_MASK = "action_mask"


class ObservationReader:
    """Reads one agent's observation as one array, without the action mask that it may carry."""

    def __init__(self, space: AnySpace) -> None:
        self.has_action_mask = isinstance(space, spaces.Dict) and ACTION_MASK in space.spaces
        self._entry: str | None = None
        if isinstance(space, spaces.Dict) and self.has_action_mask:
            rest = {key: value for key, value in space.spaces.items() if key != ACTION_MASK}
            self._entry = next(iter(rest)) if len(rest) == 1 else None
            space = rest[self._entry] if self._entry is not None else spaces.Dict(rest)
        self._space = space
        self._flatten = not isinstance(space, spaces.Box)
        shape = spaces.flatten_space(space).shape if self._flatten else space.shape
        self.shape: tuple[int, ...] = shape or (1,)
        self.own = "" if space.dtype == np.float32 and space.shape and len(space.shape) == 1 else _in_words(space)

    def __call__(self, observation: Any) -> np.ndarray:  # whatever its space holds
        """The observation without its action mask; raises ``ValueError`` where the shape is not the space's."""
        if self._entry is not None:
            observation = observation[self._entry]
        elif self.has_action_mask:
            observation = {key: value for key, value in observation.items() if key != ACTION_MASK}
        if self._flatten:
            observation = spaces.flatten(self._space, observation)
        # Numpy's functions are much slower than an array's own attributes and methods, here and below.
        shape = observation.shape if isinstance(observation, np.ndarray) else np.shape(observation)
        if (shape or (1,)) != self.shape:
            raise ValueError(f"expected shape {self.shape}, found {shape}")
        return observation


def _in_words(space: AnySpace) -> str:
    """A space, such as ``int64 [4, 4]``, ``Discrete(5)`` or ``Dict(position, speed)``."""
    if isinstance(space, spaces.Box):
        return f"{space.dtype} {list(space.shape)}"
    return f"Dict({', '.join(space.spaces)})" if isinstance(space, spaces.Dict) else str(space)


def _found(value: object) -> str:
    """What an environment gave in place of a number."""
    return f"an array of shape {value.shape}" if isinstance(value, np.ndarray) else repr(value)[:60]


class AgentRow:
    """One agent's entries in one env's row, and in ``ended`` and ``terminated`` which flags stand there.

    Flags are written where they change alone, since most steps change none.
    """

    def __init__(
        self,
        index: int,
        position: int,
        agent: str,
        group: GroupLayout,
        env: AnyParallelEnv,
        block: Block,
        infos: tuple[str, ...],
    ) -> None:
        keys, here = GroupKeys(group.name), (index, slice(position, position + 1))
        self.agent = agent
        self.alive, self.gone, self.ended, self.terminated = False, False, False, False
        self.info = InfoRow(index, group.name, position, infos, block)
        self._read = ObservationReader(env.observation_space(agent))
        space = group.agents[agent].action_space
        # The space's own shape of an action that is a vector in the block, and the first of actions that are numbers.
        self._action_shape = None if isinstance(space, spaces.Discrete) else space.shape
        self._first_action = space.start if isinstance(space, spaces.Discrete) else 0
        self._observation = block[keys.observation][index, position]
        self._flat_observation = self._observation.shape != self._read.shape
        self._action = block[keys.action][index]
        self._position = position
        self._reward, self._done, self._terminated, self._truncated = (
            block[key][index, position] for key in (keys.reward, keys.done, keys.terminated, keys.truncated)
        )
        self._counts, self._mask = False, block[keys.mask][here]
        self.went_on = block[group.name, WENT_ON][here]
        self._action_mask = block[keys.action_mask][index, position] if keys.action_mask in block else None
        self._waiting = [choice == 0 for n in group.agents[agent].n_choices for choice in range(n)]

    def action(self) -> np.ndarray | np.integer:
        """The action as the environment's own space has it; a copy, since an environment may keep it."""
        action = self._action[self._position]
        if self._action_shape is None:
            return action + self._first_action
        # `reshape` alone would be a view of the block.
        return action.copy().reshape(self._action_shape)

    def write(self, observation: Any, reward: float, terminated: bool, truncated: bool) -> None:
        """What a live agent got from a step, its last one included; a missing observation is zeros."""
        if observation is None:
            self._observation[...] = 0
        else:
            try:
                observation = self._read(observation)
                self._observation[...] = np.ravel(observation) if self._flat_observation else observation
            except Exception as error:
                raise self._unreadable(error) from error
        try:
            self._reward[0] = reward
        except (TypeError, ValueError) as error:
            raise ValueError(f"reward of {self.agent!r}: expected a number, found {_found(reward)}") from error
        if terminated or truncated or self.ended:
            self.write_flags(terminated, truncated)

    def _unreadable(self, error: Exception) -> ValueError:
        said = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        return ValueError(f"observation of {self.agent!r}: {said}")

    def write_flags(self, terminated: bool, truncated: bool) -> None:
        """Write whether and how the agent has ended."""
        self.terminated, self.ended = terminated, terminated or truncated
        self._terminated[0], self._truncated[0], self._done[0] = terminated, truncated, self.ended

    def clear_reward(self) -> None:
        """A reward of zero; all else stays."""
        self._reward[0] = 0

    def clear(self) -> None:
        """Zeros for an agent that is no longer there; the flags that it ended with stay."""
        self._observation[...] = 0
        self._reward[0] = 0

    def write_masks(self, there: bool, acts: bool, observation: Any, info: Entries | None) -> None:
        """Write whether the agent counts, and which actions it may take.

        While another agent is on turn that is action 0 alone; after its own end it is every action, since none is read.
        """
        if there is not self._counts:
            self._counts = self._mask[0] = there
        if self._action_mask is None:
            if info is not None and ACTION_MASK in info:
                raise ValueError(
                    f"{self.agent!r} has an action_mask in a step, but had none at the first reset: say so in its "
                    "observation space, a Dict with action_mask"
                )
            return
        if not acts:
            # With one action left, log-probability and entropy are 0, so an agent that waits learns values alone.
            self._action_mask[...] = self._waiting if self.alive else True
            return
        source = observation if self._read.has_action_mask else info
        self._action_mask[...] = True if source is None or ACTION_MASK not in source else source[ACTION_MASK]
        if not np.count_nonzero(self._action_mask):
            raise ValueError(f"{self.agent!r} is to act, but its action_mask allows no action")
