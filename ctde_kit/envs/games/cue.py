"""A vectorized game that only agents who communicate can solve."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from torch import Tensor

from ctde_kit.envs.games.guessing import GuessingGame
from ctde_kit.errors import UserError
from ctde_kit.keys import GroupKeys
from ctde_kit.specs import one_hot

SPEAKER, LISTENER = GroupKeys("speaker"), GroupKeys("listener")


class CueEnv(GuessingGame):
    """One agent sees which of several goals counts, and the others must choose it; no observation shows an action.

    Observation ``[n_envs, n_agents, n_goals + 1]``: the one-hot goal for the first agent, zeros for the others, and the
    elapsed share of the episode. Action: a goal, int ``[n_envs, n_agents]``; the first agent's does nothing. Reward
    ``[n_envs, n_agents, 1]``, the same for all: the share of the others that choose the goal, divided by ``length``, so
    that the best return is 1 and agents that do not communicate stay at ``1 / n_goals``. Each env has a goal of its
    own, drawn at its own reset. Episodes end (``terminated``) after ``length`` steps.

    With ``two_groups`` the first agent is the group ``speaker``, and the others, the group ``listener``, observe the
    elapsed share alone: ``[n_envs, n_agents - 1, 1]``.

    Args:
        num_envs: environments in the batch.
        n_agents: agents, at least 2.
        n_goals: how many goals there are, at least 2.
        length: steps per episode.
        two_groups: put those who see and those who choose into groups of their own.
        seed: of the env's own generator.
        device: where the env lives.

    Raises:
        UserError: for fewer agents, goals or steps.

    >>> from ctde_kit.envs.games import CueEnv
    >>> env = CueEnv(num_envs=3, n_agents=2, n_goals=4, length=5)
    >>> env.rollout(5)["next", "agents", "reward"].shape
    torch.Size([3, 5, 2, 1])
    """

    def __init__(
        self,
        num_envs: int,
        *,
        n_agents: int = 2,
        n_goals: int = 4,
        length: int = 4,
        two_groups: bool = False,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ):
        if n_agents < 2 or n_goals < 2 or length < 1:
            raise UserError(
                f"cue: n_agents={n_agents}, n_goals={n_goals} and length={length}, expected at least 2, 2 and 1"
            )
        sizes = {SPEAKER: 1, LISTENER: n_agents - 1} if two_groups else {GroupKeys(): n_agents}
        group_map = {keys.group: [f"{keys.group}_{i}" for i in range(n)] for keys, n in sizes.items()}
        super().__init__(
            num_envs,
            group_map,
            {group: 1 if group == LISTENER.group else n_goals + 1 for group in group_map},
            n_answers=n_goals,
            answers_per_env=1,
            length=length,
            seed=seed,
            device=device,
        )
        self.n_agents, self.n_goals, self.two_groups = n_agents, n_goals, two_groups

    def _observations(self) -> dict[str, Tensor]:
        sees = torch.arange(self.n_agents, device=self.device).reshape(-1, 1) == 0
        goal = (one_hot(self.answer, self.n_goals) & sees).float()
        everything = torch.cat([goal, self._elapsed_share(self.n_agents)], -1)
        if not self.two_groups:
            return {GroupKeys().group: everything}
        return {SPEAKER.group: everything[:, :1].clone(), LISTENER.group: everything[:, 1:, -1:].clone()}

    def _rewards(self, actions: TensorDictBase, done: Tensor) -> dict[str, Tensor]:
        keys = LISTENER if self.two_groups else GroupKeys()
        chosen = actions.get(keys.action)[:, -(self.n_agents - 1) :]
        reward = (chosen == self.answer).float().mean(-1) / self.length
        return {
            group: reward[:, None, None].expand(-1, len(agents), 1).clone() for group, agents in self.group_map.items()
        }
