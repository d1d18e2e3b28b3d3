"""A vectorized task that memory alone decides."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torchrl.data import Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

from ctde_kit.errors import UserError
from ctde_kit.keys import DONE, TERMINATED, TRUNCATED, GroupKeys


class RecallEnv(EnvBase):
    """Each agent sees a cue at the first step and must name it at the last.

    Observation ``[n_envs, n_agents, n_cues + 1]``: the one-hot cue (zeros after the first step) and the elapsed share
    of the episode. Action: a cue, int ``[n_envs, n_agents]``. Reward: 1 for an agent that names its cue at the last
    step, else 0, so that the mean return is the share of right answers: a policy without memory stays at
    ``1 / n_cues``. Episodes end (``terminated``) after ``length`` steps.

    Args:
        num_envs: environments in the batch.
        n_agents: agents, each with a cue of its own.
        n_cues: how many cues there are.
        length: steps an episode, at least 2.
        seed: of the env's own generator.
        device: where the env lives.

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
        super().__init__(device=torch.device(device), batch_size=torch.Size([num_envs]))
        self.n_agents, self.n_cues, self.length = n_agents, n_cues, length
        self.group_map = {"agents": [f"agent_{i}" for i in range(n_agents)]}
        self.generator = torch.Generator(device=self.device).manual_seed(seed)
        self.cue = torch.zeros(num_envs, n_agents, dtype=torch.long, device=self.device)
        self.elapsed = torch.zeros(num_envs, 1, dtype=torch.long, device=self.device)
        keys, agents = GroupKeys(), torch.Size((num_envs, n_agents))
        group = keys.group
        self.observation_spec = Composite(
            {group: Composite({"observation": Unbounded(torch.Size((*agents, n_cues + 1)))}, shape=agents)},
            shape=self.batch_size,
        ).to(self.device)
        self.action_spec = Composite(
            {group: Composite({"action": Categorical(n_cues, shape=agents)}, shape=agents)}, shape=self.batch_size
        ).to(self.device)
        self.reward_spec = Composite(
            {group: Composite({"reward": Unbounded(torch.Size((*agents, 1)))}, shape=agents)}, shape=self.batch_size
        ).to(self.device)
        flag = Categorical(2, shape=torch.Size((num_envs, 1)), dtype=torch.bool)
        self.done_spec = Composite(
            {DONE: flag, TERMINATED: flag.clone(), TRUNCATED: flag.clone()}, shape=self.batch_size
        ).to(self.device)

    def _set_seed(self, seed: int | None) -> None:
        self.generator.manual_seed(0 if seed is None else seed)

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDictBase:
        mask = None if tensordict is None else tensordict.get("_reset", None)
        drawn = torch.randint(self.n_cues, self.cue.shape, generator=self.generator, device=self.device)
        if mask is None:
            mask = torch.ones_like(self.elapsed, dtype=torch.bool)
        self.cue = torch.where(mask, drawn, self.cue)
        self.elapsed = self.elapsed.masked_fill(mask, 0)
        return self._output(torch.zeros_like(mask))

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        keys = GroupKeys()
        self.elapsed = self.elapsed + 1
        done = self.elapsed >= self.length
        right = tensordict.get(keys.action) == self.cue
        output = self._output(done)
        return output.set(keys.reward, (right & done).float().unsqueeze(-1))

    def _output(self, done: torch.Tensor) -> TensorDict:
        first = (self.elapsed == 0).unsqueeze(-1)
        cue = torch.nn.functional.one_hot(self.cue, self.n_cues) * first
        elapsed = (self.elapsed / self.length).unsqueeze(-1).expand(*self.cue.shape, 1)
        observation = torch.cat([cue.float(), elapsed], -1)
        agents = TensorDict({"observation": observation}, self.cue.shape, device=self.device)
        return TensorDict(
            {GroupKeys().group: agents, DONE: done, TERMINATED: done.clone(), TRUNCATED: torch.zeros_like(done)},
            self.batch_size,
            device=self.device,
        )

    def state_dict(self) -> dict[str, Any]:
        """Cues, elapsed steps and the generator."""
        return {"cue": self.cue.clone(), "elapsed": self.elapsed.clone(), "generator": self.generator.get_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.cue, self.elapsed = (state_dict[name].to(self.device, copy=True) for name in ("cue", "elapsed"))
        self.generator.set_state(state_dict["generator"])
