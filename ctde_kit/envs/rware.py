"""The multi-robot warehouse (RWARE) as a PettingZoo environment."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from ctde_kit.envs.pettingzoo.aec import AnyParallelEnv, AnySpace, Entries
from ctde_kit.errors import UserError

__all__ = ["RwareParallelEnv", "parallel_env"]


class RwareParallelEnv(AnyParallelEnv):
    """The multi-robot warehouse (``rware``) through PettingZoo's parallel interface; see :func:`parallel_env`."""

    def __init__(self, env_id: str, **kwargs: Any) -> None:
        # Without its own limit, which it would report as a termination: whoever steps it truncates.
        self._env: Any = gymnasium.make(env_id, disable_env_checker=True, max_steps=None, **kwargs).unwrapped
        self.render_mode = kwargs.get("render_mode")
        self.metadata = {"name": env_id}
        self.possible_agents = [f"agent_{index}" for index in range(self._env.n_agents)]
        self.agents: list[str] = []
        self.group_map = {"agents": self.possible_agents}
        self._index = {agent: index for index, agent in enumerate(self.possible_agents)}
        self._observations: tuple[np.ndarray, ...] = ()
        size = sum(math.prod(space.shape) for space in self._env.observation_space)
        self.state_space = Box(-np.inf, np.inf, (size,), np.float32)

    @property
    def unwrapped(self) -> Any:
        """The ``rware`` environment."""
        return self._env

    def observation_space(self, agent: str) -> AnySpace:
        """The space of ``agent``'s observations."""
        return self._env.observation_space[self._index[agent]]

    def action_space(self, agent: str) -> AnySpace:
        """Five actions: none, forward, left, right, load or unload; and message bits, where the robots send some."""
        return self._env.action_space[self._index[agent]]

    def reset(self, seed: int | None = None, options: Entries | None = None) -> tuple[Entries, Entries]:
        """Start an episode."""
        self._observations, _ = self._env.reset(seed=seed, options=options)
        self.agents = list(self.possible_agents)
        return self._by_agent(self._observations), {agent: {} for agent in self.agents}

    def step(self, actions: Entries) -> tuple[Entries, dict[str, float], dict[str, bool], dict[str, bool], Entries]:
        """Move, turn or lift, all at once."""
        self._observations, rewards, ended, _, _ = self._env.step([actions[agent] for agent in self.agents])
        done, no = dict.fromkeys(self.agents, bool(ended)), dict.fromkeys(self.agents, False)
        infos: Entries = {agent: {} for agent in self.agents}
        observations, rewards = self._by_agent(self._observations), self._by_agent(map(float, rewards))
        self.agents = [] if ended else self.agents
        return observations, rewards, done, no, infos

    def _by_agent(self, values: Iterable[Any]) -> Entries:
        return dict(zip(self.possible_agents, values, strict=True))

    def state(self) -> np.ndarray:
        """All observations, concatenated."""
        return np.concatenate([observation.ravel() for observation in self._observations])

    def render(self) -> Any:
        """A picture of the warehouse, uint8 ``[H, W, 3]``; it needs a screen."""
        return self._env.render()

    def close(self) -> None:
        """Close the ``rware`` environment."""
        self._env.close()


def parallel_env(env_id: str, **kwargs: Any) -> RwareParallelEnv:
    """The multi-robot warehouse (Papoudakis et al. 2021), for :func:`~ctde_kit.envs.workers.worker_env`.

    Agents ``agent_0``, ... of one group ``agents``; the actions none, forward, left, right, load or unload; ``state()``
    is all observations in a row. A robot is rewarded with 1 for each requested shelf that it delivers. It has no time
    limit of its own: 500 steps (``worker_env(max_steps=500)``) is the one that papers use.

    Args:
        env_id: as registered by ``rware``, e.g. ``rware-tiny-2ag-v2``.
        kwargs: arguments of ``rware``'s ``Warehouse``.

    Raises ``UserError`` where ``rware`` is missing, and for unknown ids.
    """
    try:
        import rware  # noqa: F401  # pyright: ignore[reportUnusedImport]  # it registers them
    except ImportError as error:
        raise UserError('the multi-robot warehouse needs the package rware; pip install "ctde-kit[rware]"') from error
    if env_id not in gymnasium.registry:
        known = [name for name in gymnasium.registry if name.startswith("rware")]
        close = ", ".join(difflib.get_close_matches(env_id, known)) or "rware-tiny-2ag-v2"
        raise UserError(f"env_id: unknown multi-robot warehouse {env_id!r}; did you mean {close}?")
    return RwareParallelEnv(env_id, **kwargs)
