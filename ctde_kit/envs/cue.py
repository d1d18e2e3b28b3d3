"""A vectorized task that communication alone decides."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

from ctde_kit.errors import UserError
from ctde_kit.keys import DONE, TERMINATED, TRUNCATED, GroupKeys
from ctde_kit.specs import one_hot

SPEAKER, LISTENER = GroupKeys("speaker"), GroupKeys("listener")


class CueEnv(EnvBase):
    """One agent sees which of several goals counts, the others must choose it; no action tells anybody anything.

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
        length: steps an episode.
        two_groups: put those who see and those who choose into groups of their own.
        seed: of the env's own generator.
        device: where the env lives.

    Raises:
        UserError: for fewer agents, goals or steps.

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
        super().__init__(device=torch.device(device), batch_size=torch.Size([num_envs]))
        self.n_agents, self.n_goals, self.length, self.two_groups = n_agents, n_goals, length, two_groups
        sizes = {SPEAKER: 1, LISTENER: n_agents - 1} if two_groups else {GroupKeys(): n_agents}
        self.group_map = {keys.group: [f"{keys.group}_{i}" for i in range(n)] for keys, n in sizes.items()}
        self.generator = torch.Generator(device=self.device).manual_seed(seed)
        self.goal = torch.zeros(num_envs, 1, dtype=torch.long, device=self.device)
        self.elapsed = torch.zeros(num_envs, 1, dtype=torch.long, device=self.device)
        self._make_specs()

    def _make_specs(self) -> None:
        shapes = {name: torch.Size((*self.batch_size, len(agents))) for name, agents in self.group_map.items()}

        def grouped(name: str, specs: dict[str, Any]) -> Composite:
            groups = {group: Composite({name: spec}, shape=shapes[group]) for group, spec in specs.items()}
            return Composite(groups, shape=self.batch_size)

        features = {group: 1 if group == LISTENER.group else self.n_goals + 1 for group in shapes}
        self.observation_spec = grouped(
            "observation", {g: Unbounded(torch.Size((*s, features[g]))) for g, s in shapes.items()}
        )
        self.action_spec = grouped("action", {g: Categorical(self.n_goals, shape=s) for g, s in shapes.items()})
        self.reward_spec = grouped("reward", {g: Unbounded(torch.Size((*s, 1))) for g, s in shapes.items()})
        flag = Categorical(2, shape=torch.Size((*self.batch_size, 1)), dtype=torch.bool)
        self.done_spec = Composite(
            {DONE: flag, TERMINATED: flag.clone(), TRUNCATED: flag.clone()}, shape=self.batch_size
        )
        self.to(self.device)

    def _set_seed(self, seed: int | None) -> None:
        self.generator.manual_seed(0 if seed is None else seed)

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDictBase:
        mask = None if tensordict is None else tensordict.get("_reset", None)
        drawn = torch.randint(self.n_goals, self.goal.shape, generator=self.generator, device=self.device)
        if mask is None:
            mask = torch.ones_like(self.elapsed, dtype=torch.bool)
        self.goal = torch.where(mask, drawn, self.goal)
        self.elapsed = self.elapsed.masked_fill(mask, 0)
        return self._output(torch.zeros_like(mask))

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        self.elapsed = self.elapsed + 1
        keys = LISTENER if self.two_groups else GroupKeys()
        chosen = tensordict.get(keys.action)[:, -(self.n_agents - 1) :]
        reward = (chosen == self.goal).float().mean(-1) / self.length
        output = self._output(self.elapsed >= self.length)
        for group, agents in self.group_map.items():
            output.set(GroupKeys(group).reward, reward[:, None, None].expand(-1, len(agents), 1).clone())
        return output

    def _output(self, done: Tensor) -> TensorDict:
        elapsed = (self.elapsed / self.length).unsqueeze(-1).expand(-1, self.n_agents, 1)
        sees = torch.arange(self.n_agents, device=self.device).reshape(-1, 1) == 0
        everything = torch.cat([(one_hot(self.goal, self.n_goals) & sees).float(), elapsed], -1)
        flags = {DONE: done, TERMINATED: done.clone(), TRUNCATED: torch.zeros_like(done)}
        output = TensorDict(flags, self.batch_size, device=self.device)
        observations = {SPEAKER: everything[:, :1], LISTENER: everything[:, 1:, -1:]}
        for keys, observation in (observations if self.two_groups else {GroupKeys(): everything}).items():
            output.set(keys.group, TensorDict({"observation": observation.clone()}, observation.shape[:2]))
        return output

    def state_dict(self) -> dict[str, Any]:
        """Goals, elapsed steps and the generator."""
        return {"goal": self.goal.clone(), "elapsed": self.elapsed.clone(), "generator": self.generator.get_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.goal, self.elapsed = (state_dict[name].to(self.device, copy=True) for name in ("goal", "elapsed"))
        self.generator.set_state(state_dict["generator"])
