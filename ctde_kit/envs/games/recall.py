"""A vectorized game that only agents with a memory can solve."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from torch import Tensor

from ctde_kit.envs.games.guessing import GuessingGame
from ctde_kit.errors import UserError
from ctde_kit.keys import GroupKeys
from ctde_kit.specs import one_hot


class RecallEnv(GuessingGame):
    """Each agent sees a cue at the first step and must name it at the last.

    Observation ``[n_envs, n_agents, n_cues + 1]``: the one-hot cue (zeros after the first step) and the elapsed share
    of the episode. Action: a cue, int ``[n_envs, n_agents]``. Reward ``[n_envs, n_agents, 1]``: 1 for an agent that
    names its cue at the last step, else 0. So the mean return is the share of right answers, and a policy without
    memory stays at ``1 / n_cues``. Episodes end (``terminated``) after ``length`` steps.

    Args:
        num_envs: environments in the batch.
        n_agents: agents, each with a cue of its own.
        n_cues: how many cues there are, at least 2.
        length: steps per episode, at least 2.
        seed: of the env's own generator.
        device: where the env lives.

    Raises:
        UserError: for fewer cues or steps.

    >>> from ctde_kit.envs.games import RecallEnv
    >>> env = RecallEnv(num_envs=3, n_agents=2, n_cues=4, length=5)
    >>> env.rollout(5)["next", "agents", "reward"].shape
    torch.Size([3, 5, 2, 1])
    """

    def __init__(
        self,
        num_envs: int,
        *,
        n_agents: int = 2,
        n_cues: int = 4,
        length: int = 8,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ):
        if length < 2 or n_cues < 2:
            raise UserError(f"recall: length={length} and n_cues={n_cues}, expected at least 2 of each")
        group = GroupKeys().group
        super().__init__(
            num_envs,
            {group: [f"agent_{i}" for i in range(n_agents)]},
            {group: n_cues + 1},
            n_answers=n_cues,
            answers_per_env=n_agents,
            length=length,
            seed=seed,
            device=device,
        )
        self.n_agents, self.n_cues = n_agents, n_cues

    def _observations(self) -> dict[str, Tensor]:
        first = (self.elapsed == 0).unsqueeze(-1)
        cue = one_hot(self.answer, self.n_cues) & first
        return {GroupKeys().group: torch.cat([cue.float(), self._elapsed_share(self.n_agents)], -1)}

    def _rewards(self, actions: TensorDictBase, done: Tensor) -> dict[str, Tensor]:
        keys = GroupKeys()
        right = actions.get(keys.action) == self.answer
        return {keys.group: (right & done).float().unsqueeze(-1)}
