"""Level-based foraging as a PettingZoo environment."""

from __future__ import annotations

import difflib
import math
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

from ctde_kit.envs.pettingzoo.aec import AnyParallelEnv, AnySpace, Entries
from ctde_kit.errors import UserError

__all__ = ["LBFParallelEnv", "lbf_parallel_env"]

_N_ACTIONS = 6


class LBFParallelEnv(AnyParallelEnv):
    """Level-based foraging (``lbforaging``) through PettingZoo's parallel interface; see :func:`lbf_parallel_env`."""

    def __init__(self, env_id: str, max_steps: int) -> None:
        self._env: Any = gymnasium.make(env_id, disable_env_checker=True).unwrapped  # lbforaging declares no types
        # Its own limit is reported as a termination.
        self._env._max_episode_steps = math.inf
        # It resolves loads in the order of a set of players, which depends on their hashes, by default memory
        # addresses. With these hashes the same seed gives the same episode in every process.
        for number, player in enumerate(self._env.players):
            player.__class__ = type(
                type(player).__name__, (type(player),), {"__hash__": lambda _, number=number: number}
            )
        self._max_steps, self._step = max_steps, 0
        # Drawn by Pillow: lbforaging's own renderer needs a screen.
        self.render_mode = "rgb_array"
        self.metadata = {"name": env_id}
        self.possible_agents = [f"agent_{index}" for index in range(self._env.n_agents)]
        self.agents: list[str] = []
        self.group_map = {"agents": self.possible_agents}
        self._index = {agent: index for index, agent in enumerate(self.possible_agents)}
        self._observations: dict[str, np.ndarray] = {}
        box = self._env.observation_space[0]
        self.state_space = Box(-np.inf, np.inf, (len(self.possible_agents) * math.prod(box.shape),), np.float32)

    @property
    def unwrapped(self) -> object:
        """The ``lbforaging`` environment."""
        return self._env

    def observation_space(self, agent: str) -> AnySpace:
        """The space of ``agent``'s observations."""
        return self._env.observation_space[self._index[agent]]

    def action_space(self, agent: str) -> AnySpace:
        """Six actions: none, north, south, west, east, load."""
        return Discrete(_N_ACTIONS)

    def reset(self, seed: int | None = None, options: Entries | None = None) -> tuple[Entries, Entries]:
        """Start an episode."""
        if seed is not None:
            # Where players stood in the last episode counts as taken while new places are drawn.
            for player in self._env.players:
                player.position = None
        observations, _ = self._env.reset(seed=seed, options=options)
        self._step, self.agents = 0, list(self.possible_agents)
        self._observations = dict(zip(self.agents, observations, strict=True))
        return dict(self._observations), self._infos()

    def step(self, actions: Entries) -> tuple[Entries, dict[str, float], dict[str, bool], dict[str, bool], Entries]:
        """Step all agents at once; each moves or loads."""
        agents = self.agents
        observations, rewards, eaten, _, _ = self._env.step([int(actions[agent]) for agent in agents])
        self._step += 1
        late = self._step >= self._max_steps and not eaten
        self._observations = dict(zip(agents, observations, strict=True))
        infos = self._infos()
        self.agents = [] if eaten or late else agents
        rewards = dict(zip(agents, map(float, rewards), strict=True))
        return dict(self._observations), rewards, dict.fromkeys(agents, bool(eaten)), dict.fromkeys(agents, late), infos

    def _infos(self) -> Entries:
        infos = {}
        for agent, player in zip(self.possible_agents, self._env.players, strict=True):
            mask = np.zeros(_N_ACTIONS, np.int8)
            mask[[action.value for action in self._env._valid_actions[player]]] = 1
            infos[agent] = {"action_mask": mask}
        return infos

    def state(self) -> np.ndarray:
        """All observations, concatenated."""
        return np.concatenate(list(self._observations.values()), axis=None)

    def render(self) -> np.ndarray:
        """A picture of the field, uint8 ``[H, W, 3]``."""
        from ctde_kit.envs.lbf_drawing import draw_field

        players = [(player.position, player.level) for player in self._env.players]
        return draw_field(self._env.field, players)

    def close(self) -> None:
        """Close the ``lbforaging`` environment."""
        self._env.close()


def lbf_parallel_env(env_id: str, max_steps: int = 50) -> LBFParallelEnv:
    """Level-based foraging (Papoudakis et al. 2021), for :func:`~ctde_kit.envs.workers.worker_env`.

    The agents ``agent_0``, ... form the group ``agents``. Their actions are none, north, south, west, east and load;
    the infos hold masks of the valid ones. ``state()`` is all observations in a row. Each agent has its own reward; the
    rewards of all agents in an episode in which everything is eaten sum to 1.

    Args:
        env_id: as registered by ``lbforaging``, e.g. ``Foraging-8x8-2p-2f-coop-v3``.
        max_steps: the time limit, which truncates (``lbforaging`` reports a termination, after 50 steps in every task).

    Raises ``UserError`` where ``lbforaging`` is missing, for unknown ids, and for ``max_steps`` below 1.

    >>> env = lbf_parallel_env("Foraging-8x8-2p-2f-coop-v3")
    >>> observations, infos = env.reset(seed=0)
    >>> observations["agent_1"].shape, env.state().shape, infos["agent_0"]["action_mask"].tolist()
    ((12,), (24,), [1, 1, 1, 1, 1, 0])
    """
    try:
        import lbforaging  # noqa: F401  # pyright: ignore[reportUnusedImport]  # it registers its environments
    except ImportError as error:
        raise UserError('level-based foraging needs the package lbforaging; pip install "ctde-kit[lbf]"') from error
    if env_id not in gymnasium.registry:
        known = [name for name in gymnasium.registry if name.startswith("Foraging")]
        close = ", ".join(difflib.get_close_matches(env_id, known)) or "Foraging-8x8-2p-2f-coop-v3"
        raise UserError(f"env_id: unknown level-based foraging task {env_id!r}; did you mean {close}?")
    if max_steps < 1:
        raise UserError(f"max_steps: expected an integer >= 1, found {max_steps}")
    return LBFParallelEnv(env_id, max_steps)
