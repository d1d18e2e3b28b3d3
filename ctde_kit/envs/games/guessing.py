"""The base of games in which agents must choose a hidden answer."""

from __future__ import annotations

from abc import abstractmethod

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Categorical, Unbounded
from torchrl.envs import EnvBase

from ctde_kit.envs.games.specs_by_group import done_specs, specs_by_group
from ctde_kit.keys import DONE, TERMINATED, TRUNCATED, GroupKeys
from ctde_kit.protocols import StateDict


class GuessingGame(EnvBase):
    """A game of fixed length with a hidden answer, drawn anew for each env at its reset; it ends as ``terminated``.

    It implements what TorchRL asks of an env. A subclass says what agents observe and what their actions earn.

    Args:
        num_envs: games in the batch.
        group_map: the names of each group's agents.
        observation_dims: features of each group's observation.
        n_answers: how many answers, and so actions, there are.
        answers_per_env: answers of one env, each drawn by itself.
        length: steps per episode.
        seed: of the env's own generator.
        device: where the env lives.
    """

    def __init__(
        self,
        num_envs: int,
        group_map: dict[str, list[str]],
        observation_dims: dict[str, int],
        *,
        n_answers: int,
        answers_per_env: int,
        length: int,
        seed: int,
        device: torch.device | str,
    ):
        super().__init__(device=torch.device(device), batch_size=torch.Size([num_envs]))
        self.group_map, self.n_answers, self.length = group_map, n_answers, length
        self.generator = torch.Generator(device=self.device).manual_seed(seed)
        self.answer = torch.zeros(num_envs, answers_per_env, dtype=torch.long, device=self.device)
        self.elapsed = torch.zeros(num_envs, 1, dtype=torch.long, device=self.device)
        shapes = {group: (num_envs, len(agents)) for group, agents in group_map.items()}
        self.observation_spec = specs_by_group(
            "observation", {g: Unbounded(torch.Size((*s, observation_dims[g]))) for g, s in shapes.items()}
        )
        self.action_spec = specs_by_group(
            "action", {g: Categorical(n_answers, shape=torch.Size(s)) for g, s in shapes.items()}
        )
        self.reward_spec = specs_by_group("reward", {g: Unbounded(torch.Size((*s, 1))) for g, s in shapes.items()})
        self.done_spec = done_specs(num_envs)
        self.to(self.device)

    @abstractmethod
    def _observations(self) -> dict[str, Tensor]:
        """Each group's observation ``[n_envs, n_agents, F]`` at this moment."""

    @abstractmethod
    def _rewards(self, actions: TensorDictBase, done: Tensor) -> dict[str, Tensor]:
        """Each group's reward ``[n_envs, n_agents, 1]``; ``done`` bool ``[n_envs, 1]``: which games end."""

    def _set_seed(self, seed: int | None) -> None:
        self.generator.manual_seed(0 if seed is None else seed)

    def _reset(self, tensordict: TensorDictBase | None = None, **_: object) -> TensorDictBase:
        mask = None if tensordict is None else tensordict.get("_reset", None)
        drawn = torch.randint(self.n_answers, self.answer.shape, generator=self.generator, device=self.device)
        if mask is None:
            mask = torch.ones_like(self.elapsed, dtype=torch.bool)
        self.answer = torch.where(mask, drawn, self.answer)
        self.elapsed = self.elapsed.masked_fill(mask, 0)
        return self._output(torch.zeros_like(mask))

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        self.elapsed = self.elapsed + 1
        done = self.elapsed >= self.length
        output = self._output(done)
        for group, reward in self._rewards(tensordict, done).items():
            output.set(GroupKeys(group).reward, reward)
        return output

    def _output(self, done: Tensor) -> TensorDict:
        flags = {DONE: done, TERMINATED: done.clone(), TRUNCATED: torch.zeros_like(done)}
        output = TensorDict(flags, self.batch_size, device=self.device)
        for group, observation in self._observations().items():
            output.set(group, TensorDict({"observation": observation}, observation.shape[:2], device=self.device))
        return output

    def _elapsed_share(self, n_agents: int) -> Tensor:
        """The elapsed share of the episode for each agent, ``[n_envs, n_agents, 1]``."""
        return (self.elapsed / self.length).unsqueeze(-1).expand(-1, n_agents, 1)

    def state_dict(self) -> StateDict:
        """Answers, elapsed steps and the generator."""
        return {
            "answer": self.answer.clone(),
            "elapsed": self.elapsed.clone(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Go on from a state that an env built with the same arguments gave."""
        self.answer, self.elapsed = (state_dict[name].to(self.device, copy=True) for name in ("answer", "elapsed"))
        self.generator.set_state(state_dict["generator"])
