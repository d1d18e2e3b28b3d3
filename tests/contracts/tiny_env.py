"""An env in which everything is random and every kind of entry is there: for parts that must fit, not learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torchrl.data import Bounded, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

from ctde_kit.recipes.configs.tasks.task import TaskConfig

N_AGENTS, FEATURES, STATE_DIM, CHOICES, LENGTH = 3, 5, 7, 4, 3


class TinyEnv(EnvBase):
    """Three agents, two of whom die at times; a root state; continuous actions or one choice each."""

    def __init__(self, num_envs: int, continuous: bool):
        super().__init__(batch_size=torch.Size([num_envs]))
        agents = torch.Size([num_envs, N_AGENTS])
        self.group_map = {"agents": [f"agent_{i}" for i in range(N_AGENTS)]}
        self.elapsed = torch.zeros(num_envs, 1, dtype=torch.long)
        alive = Categorical(2, shape=agents, dtype=torch.bool)
        seen = {"observation": Unbounded(torch.Size([*agents, FEATURES])), "mask": alive}
        state = Unbounded(torch.Size([num_envs, STATE_DIM]))
        self.observation_spec = Composite(
            {"agents": Composite(seen, shape=agents), "state": state}, shape=self.batch_size
        )
        action: Any = (
            Bounded(-1, 1, shape=torch.Size([*agents, 2])) if continuous else Categorical(CHOICES, shape=agents)
        )
        self.action_spec = Composite({"agents": Composite({"action": action}, shape=agents)}, shape=self.batch_size)
        reward = Unbounded(torch.Size([*agents, 1]))
        self.reward_spec = Composite({"agents": Composite({"reward": reward}, shape=agents)}, shape=self.batch_size)
        flag = Categorical(2, shape=torch.Size([num_envs, 1]), dtype=torch.bool)
        self.done_spec = Composite(
            {"done": flag, "terminated": flag.clone(), "truncated": flag.clone()}, shape=self.batch_size
        )

    def _set_seed(self, seed: int | None) -> None:
        """It draws from the program's generator."""

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDictBase:
        mask = None if tensordict is None else tensordict.get("_reset", None)
        self.elapsed = torch.zeros_like(self.elapsed) if mask is None else self.elapsed.masked_fill(mask, 0)
        return self._output()

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        self.elapsed = self.elapsed + 1
        return self._output().set(("agents", "reward"), torch.randn(*self.batch_size, N_AGENTS, 1))

    def _output(self) -> TensorDictBase:
        agents = (*self.batch_size, N_AGENTS)
        alive = torch.rand(agents) < 0.8
        alive[:, 0] = True
        truncated = self.elapsed >= LENGTH
        data = {"observation": torch.randn(*agents, FEATURES), "mask": alive}
        flags = {"done": truncated, "terminated": torch.zeros_like(truncated), "truncated": truncated.clone()}
        state = torch.randn(*self.batch_size, STATE_DIM)
        return TensorDict({"agents": TensorDict(data, agents), "state": state, **flags}, self.batch_size)

    def state_dict(self) -> dict[str, Any]:
        """How long each episode has gone on."""
        return {"elapsed": self.elapsed.clone()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.elapsed = state_dict["elapsed"].clone()


@dataclass
class TinyTask(TaskConfig):
    """The env as recipes take tasks."""

    name: str = "tests/tiny"
    n_envs: int = 4
    continuous_actions: bool = True

    @property
    def episode_steps(self) -> int:
        return LENGTH

    def build(self, *, seed: int, device: str, n_envs: int | None = None) -> EnvBase:
        return TinyEnv(n_envs or self.n_envs, self.continuous_actions)
