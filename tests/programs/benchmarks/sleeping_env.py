"""An env whose steps take a stated time and nearly no processor: many of them run side by side on few cores."""

from __future__ import annotations

import time
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import nn
from torchrl.data import Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

from ctde_kit.collectors import RolloutCollector

N_ENVS, STEPS, N_AGENTS, FEATURES, WEIGHTS = 16, 25, 3, 18, 72_000


class SleepingEnv(EnvBase):
    """A batch of 16 envs for three agents, whose step sleeps for the seconds that stand in the action."""

    def __init__(self) -> None:
        super().__init__(batch_size=torch.Size([N_ENVS]))
        agents = torch.Size([N_ENVS, N_AGENTS])
        self.observation = torch.zeros(*agents, FEATURES)
        self.observation_spec = self._of_agents("observation", FEATURES)
        self.action_spec = self._of_agents("action", 1)
        self.reward_spec = self._of_agents("reward", 1)
        flag = Categorical(2, shape=torch.Size([N_ENVS, 1]), dtype=torch.bool)
        self.done_spec = Composite({"done": flag, "terminated": flag.clone()}, shape=self.batch_size)

    def _of_agents(self, name: str, size: int) -> Composite:
        agents = torch.Size([N_ENVS, N_AGENTS])
        entry = Unbounded(torch.Size([*agents, size]))
        return Composite({"agents": Composite({name: entry}, shape=agents)}, shape=self.batch_size)

    def _set_seed(self, seed: int | None) -> None:
        """Nothing is drawn."""

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDictBase:
        return self._output()

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        time.sleep(tensordict["agents", "action"][0, 0, 0].item())
        return self._output().set(("agents", "reward"), torch.zeros(N_ENVS, N_AGENTS, 1))

    def _output(self) -> TensorDictBase:
        agents = TensorDict({"observation": self.observation.clone()}, [N_ENVS, N_AGENTS])
        flag = torch.zeros(N_ENVS, 1, dtype=torch.bool)
        return TensorDict({"agents": agents, "done": flag, "terminated": flag.clone()}, self.batch_size)


class StepSeconds(TensorDictModuleBase):
    """A policy that tells the env how long to sleep: the delay travels with the weights, so no process starts anew.

    Beside it there are as many unused weights as an actor of 256x2 has.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seconds = nn.Parameter(torch.zeros(()))
        self.unused = nn.Parameter(torch.zeros(WEIGHTS))
        self.in_keys, self.out_keys = [("agents", "observation")], [("agents", "action")]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        return tensordict.set(("agents", "action"), self.seconds.detach().expand(N_ENVS, N_AGENTS, 1).clone())


def build(rank: int = 0) -> RolloutCollector:
    """The collector of a rank; all are alike."""
    return RolloutCollector(SleepingEnv(), StepSeconds(), frames_per_batch=N_ENVS * STEPS)
