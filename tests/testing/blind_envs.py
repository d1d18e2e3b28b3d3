"""A user's environment, and two ways in which users break such a one; written before the doctor was read.

As first written it began alike without a seed, which the doctor found.
"""

from __future__ import annotations

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Bounded, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

N_ACTIONS = 5
MOVES = torch.tensor([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])


class MeetingEnv(EnvBase):
    """Agents on a plane look for a point that differs from episode to episode; the team ends when all are near it.

    An agent observes where it is and where the point lies from there, ``[num_envs, n_agents, 4]``. It moves by one of
    five actions, or by a vector where ``continuous``. After ``max_steps`` the episode is truncated.
    """

    def __init__(
        self,
        num_envs: int = 6,
        n_agents: int = 3,
        max_steps: int = 9,
        *,
        continuous: bool = False,
        seed: int | None = 0,
    ):
        super().__init__(batch_size=[num_envs])
        self.num_envs, self.n_agents, self.max_steps, self.continuous = num_envs, n_agents, max_steps, continuous
        agents = (num_envs, n_agents)
        action = Bounded(-1, 1, (*agents, 2)) if continuous else Categorical(N_ACTIONS, agents)
        self.action_spec = Composite(agents=Composite(action=action, shape=agents), shape=(num_envs,))
        self.observation_spec = Composite(
            agents=Composite(observation=Unbounded((*agents, 4)), shape=agents), shape=(num_envs,)
        )
        self.reward_spec = Composite(agents=Composite(reward=Unbounded((*agents, 1)), shape=agents), shape=(num_envs,))
        flag = Categorical(2, (num_envs, 1), dtype=torch.bool)
        self.done_spec = Composite(done=flag, terminated=flag.clone(), truncated=flag.clone(), shape=(num_envs,))
        self.position, self.goal = torch.zeros(*agents, 2), torch.zeros(num_envs, 1, 2)
        self.steps = torch.zeros(num_envs, dtype=torch.long)
        self.generator = torch.Generator()
        self.generator.seed()
        if seed is not None:
            self.set_seed(seed)

    def _set_seed(self, seed: int | None) -> None:
        if seed is not None:
            self.generator.manual_seed(seed)

    def _reset(self, tensordict: TensorDictBase | None = None, **kwargs: object) -> TensorDict:
        reset = torch.ones(self.num_envs, dtype=torch.bool)
        if tensordict is not None and "_reset" in tensordict:
            reset = tensordict["_reset"].reshape(self.num_envs)
        position = torch.rand(self.num_envs, self.n_agents, 2, generator=self.generator) * 2 - 1
        goal = torch.rand(self.num_envs, 1, 2, generator=self.generator) * 2 - 1
        self.place(reset, position, goal)
        self.restart_clock(reset)
        agents = TensorDict({"observation": self.observe()}, [self.num_envs, self.n_agents])
        return TensorDict({"agents": agents}, [self.num_envs])

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        action = tensordict["agents", "action"]
        self.move(0.2 * (action if self.continuous else MOVES[action]))
        self.steps = self.steps + 1
        distance = (self.goal - self.position).norm(dim=-1, keepdim=True)
        terminated = (distance < 0.8).all(1)
        truncated = (self.steps >= self.max_steps).unsqueeze(-1)
        agents = TensorDict({"observation": self.observe(), "reward": -distance}, [self.num_envs, self.n_agents])
        flags = {"done": terminated | truncated, "terminated": terminated, "truncated": truncated}
        return TensorDict({"agents": agents, **flags}, [self.num_envs])

    def place(self, reset: Tensor, position: Tensor, goal: Tensor) -> None:
        self.position = torch.where(reset[:, None, None], position, self.position)
        self.goal = torch.where(reset[:, None, None], goal, self.goal)

    def restart_clock(self, reset: Tensor) -> None:
        self.steps = torch.where(reset, 0, self.steps)

    def move(self, change: Tensor) -> None:
        self.position = self.position + change

    def observe(self) -> Tensor:
        return torch.cat([self.position, self.goal - self.position], -1)


class OverwrittenObservationEnv(MeetingEnv):
    """Broken: every observation is the same preallocated tensor, which the next step overwrites.

    Gymnasium's vector environments return a buffer of theirs where ``copy=False``; simulators that write into shared
    memory do the same. Whoever keeps an observation finds a later one in it.
    """

    def observe(self) -> Tensor:
        if not hasattr(self, "buffer"):
            self.buffer = torch.zeros(self.num_envs, self.n_agents, 4)
        return self.buffer.copy_(super().observe())


class ClockGoesOnEnv(MeetingEnv):
    """Broken: a reset puts the agents back and forgets the step counter, so every later episode has one step."""

    def restart_clock(self, reset: Tensor) -> None:
        pass
