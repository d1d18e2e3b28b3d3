"""An env as users write them, right or with one of their faults."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Bounded, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

N_AGENTS, SIZE, LIMIT = 3, 2, 6


class WalkEnv(EnvBase):
    """Agents walk on a plane by continuous actions, or in four directions, one of which is forbidden.

    Args:
        num_envs: environments in the batch.
        fault: what is wrong with it; empty for nothing.
        discrete: four directions, with masks.
        seed: of its generator.
    """

    def __init__(self, num_envs: int = 4, fault: str = "", discrete: bool = False, seed: int | None = 0):
        super().__init__(batch_size=torch.Size([num_envs]))
        self.fault, self.discrete, self.max_steps = fault, discrete, LIMIT
        self.generator = torch.Generator().manual_seed(1 if seed is None and fault == "copies alike" else seed or 0)
        if seed is None and fault != "copies alike":
            self.generator.seed()
        agents = torch.Size([num_envs, N_AGENTS])
        seen: dict[str, Any] = {"observation": Unbounded(torch.Size([*agents, SIZE]))}
        if fault == "dtype":
            seen["observation"] = Unbounded(torch.Size([*agents, SIZE]), dtype=torch.float64)
        if discrete:
            seen["action_mask"] = Categorical(2, shape=torch.Size([*agents, 4]), dtype=torch.bool)
        # One fault is a group without its agents in the batch size, as a primer of TorchRL's makes it.
        shape = self.batch_size if fault == "batch size" else agents
        self.observation_spec = Composite({"agents": Composite(seen, shape=shape)}, shape=self.batch_size)
        action: Any = Categorical(4, shape=agents) if discrete else Bounded(-1, 1, shape=torch.Size([*agents, SIZE]))
        self.action_spec = Composite({"agents": Composite({"action": action}, shape=agents)}, shape=self.batch_size)
        reward = Unbounded(torch.Size([*agents, 1]))
        self.reward_spec = Composite({"agents": Composite({"reward": reward}, shape=agents)}, shape=self.batch_size)
        flag = Categorical(2, shape=torch.Size([num_envs, 1]), dtype=torch.bool)
        flags: dict[str, Any] = {name: flag.clone() for name in ("done", "terminated", "truncated")}
        if fault == "goes on":
            own = Categorical(2, shape=torch.Size([*agents, 1]), dtype=torch.bool)
            flags["agents"] = Composite({name: own.clone() for name in flags}, shape=agents)
        self.done_spec = Composite(flags, shape=self.batch_size)
        self.place, self.elapsed = torch.zeros(*agents, SIZE), torch.zeros(num_envs, 1, dtype=torch.long)
        self.tired, self.seen = torch.zeros(num_envs, 1, dtype=torch.bool), torch.zeros(*agents, SIZE)

    def _set_seed(self, seed: int | None) -> None:
        if self.fault != "deaf to seeds":
            self.generator.manual_seed(seed or 0)

    def _draw(self) -> Tensor:
        drawn = 2 * torch.randn(self.place.shape, generator=self.generator)
        return drawn[:1].expand_as(drawn).clone() if self.fault == "rows alike" else drawn

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDictBase:
        mask = None if tensordict is None else tensordict.get("_reset", None)
        if mask is None or self.fault == "resets all":
            mask = torch.ones_like(self.elapsed, dtype=torch.bool)
        self._restart(mask)
        return self._output(torch.zeros_like(mask), mask_shown=self.fault != "late mask")

    def _restart(self, mask: Tensor) -> None:
        self.place = torch.where(mask.unsqueeze(-1), self._draw(), self.place)
        if self.fault != "counts on":
            self.elapsed = self.elapsed.masked_fill(mask, 0)
        if self.fault != "stays tired":
            self.tired = self.tired & ~mask

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        action = tensordict.get(("agents", "action"))
        if self.discrete:
            action = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]])[action]
        self.place = self.place + 0.05 * action * (1 - 0.5 * self.tired.unsqueeze(-1))
        self.elapsed = self.elapsed + 1
        self.tired = self.tired | (self.elapsed > LIMIT // 2)
        done = self.elapsed >= LIMIT
        if self.fault == "observes after the reset":
            self._restart(done)
        output = self._output(done)
        reward = -self.place.norm(dim=-1, keepdim=True)
        return output.set(("agents", "reward"), reward / 0 if self.fault == "not a number" else reward)

    def _output(self, done: Tensor, mask_shown: bool = True) -> TensorDictBase:
        ended = done if self.fault == "limit terminates" else torch.zeros_like(done)
        flags = {"done": done, "terminated": ended, "truncated": done & ~ended}
        seen = self.seen.copy_(self.place) if self.fault == "overwrites" else self.place.clone()
        agents: dict[str, Any] = {"observation": seen}
        if self.discrete and mask_shown:
            allowed = self.place.sum(-1, keepdim=True).abs() % 4 < torch.arange(4)
            allowed[..., 0] = True
            agents["action_mask"] = allowed & (self.fault != "nothing allowed")
        if self.fault == "goes on":
            own = {name: value.unsqueeze(1).repeat(1, N_AGENTS, 1) for name, value in flags.items()}
            for name in ("done", "terminated"):
                own[name][:, 1] |= self.elapsed == 2  # and in no later step
            agents |= own
        group = TensorDict(agents, self.place.shape[:2])
        return TensorDict({"agents": group, **flags}, self.batch_size)
