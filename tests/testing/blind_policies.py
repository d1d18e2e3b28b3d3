"""Two actors of users, and how users break such ones; written before the doctor was read.

As first written the recurrent one unrolled shuffled steps as one sequence, which the doctor found.
"""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModule, TensorDictModuleBase
from torch import Tensor, nn
from torch.distributions import Categorical
from torchrl.modules import ProbabilisticActor
from torchrl.modules.tensordict_module.rnn import recurrent_mode


class NetworkPerAgent(nn.Module):
    """One network per agent, all in one batched product: ``[*B, n_agents, in]`` to ``[*B, n_agents, out]``."""

    def __init__(self, n_agents: int, in_features: int, out_features: int, hidden: int = 16):
        super().__init__()
        self.n_agents = n_agents
        self.first = nn.Parameter(torch.randn(n_agents, in_features, hidden) / in_features**0.5)
        self.second = nn.Parameter(torch.randn(n_agents, hidden, out_features) / hidden**0.5)

    def forward(self, observation: Tensor) -> Tensor:
        out = self.unfold(torch.tanh(self.fold(observation) @ self.first) @ self.second, observation)
        return out.reshape(*observation.shape[:-1], out.shape[-1])

    def fold(self, observation: Tensor) -> Tensor:
        """``[n_agents, B, in]``."""
        return observation.reshape(-1, *observation.shape[-2:]).transpose(0, 1)

    def unfold(self, out: Tensor, observation: Tensor) -> Tensor:
        return out.transpose(0, 1)


class MisfoldedNetworkPerAgent(NetworkPerAgent):
    """Broken: agents and batch change places by ``reshape`` where ``transpose`` was meant.

    Shapes are right and nothing is lost on the way back, yet row ``b`` of agent ``i`` passes through the network of
    whichever agent its place in the memory belongs to. With a batch of one row it even is right.
    """

    def fold(self, observation: Tensor) -> Tensor:
        return observation.reshape(self.n_agents, -1, observation.shape[-1])

    def unfold(self, out: Tensor, observation: Tensor) -> Tensor:
        return out


class MemoryNetwork(TensorDictModuleBase):
    """A GRU cell per agent with shared weights: step by step, or over sequences ``[*B, T]`` in recurrent mode.

    Reads the observation, ``is_init`` and the stored hidden state; writes logits and the hidden state for the next
    step.
    """

    hidden_key = ("agents", "memory")

    def __init__(self, in_features: int, out_features: int, hidden_size: int = 8):
        super().__init__()
        self.in_keys = [("agents", "observation"), "is_init", self.hidden_key]
        self.out_keys = [("agents", "logits"), ("next", *self.hidden_key)]
        self.cell, self.head = nn.GRUCell(in_features, hidden_size), nn.Linear(hidden_size, out_features)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        observation, is_init, hidden = (tensordict[key] for key in self.in_keys)
        if recurrent_mode():
            if observation.ndim < 4:
                raise ValueError(f"sequences [*B, T]: expected observations of 4 dimensions, found {observation.ndim}")
            states = self.sequence(observation, is_init, hidden[..., 0, :, :])
        else:
            states = self.step(observation, is_init, hidden)
        tensordict[self.out_keys[0]] = self.head(states)
        tensordict[self.out_keys[1]] = states
        return tensordict

    def step(self, observation: Tensor, is_init: Tensor, hidden: Tensor) -> Tensor:
        hidden = hidden * ~is_init.unsqueeze(-1)
        flat = self.cell(observation.reshape(-1, observation.shape[-1]), hidden.reshape(-1, hidden.shape[-1]))
        return flat.reshape(hidden.shape)

    def sequence(self, observation: Tensor, is_init: Tensor, hidden: Tensor) -> Tensor:
        states = []
        for t in range(observation.shape[-3]):
            hidden = self.step(observation[..., t, :, :], is_init[..., t, :], hidden)
            states.append(hidden)
        return torch.stack(states, -3)


class UnbrokenMemoryNetwork(MemoryNetwork):
    """Broken: a sequence is unrolled in one go, and what was remembered in one episode goes on in the next.

    Step by step the state is zeroed where an episode begins, as it should be; only learning sees the other one.
    """

    def sequence(self, observation: Tensor, is_init: Tensor, hidden: Tensor) -> Tensor:
        first = torch.zeros_like(is_init)
        first[..., 0, :] = is_init[..., 0, :]
        return super().sequence(observation, first, hidden)


def discrete_actor(network: nn.Module) -> ProbabilisticActor:
    """TorchRL's actor of ``network``, a module of tensors or of tensordicts that gives logits."""
    module = network
    if not isinstance(network, TensorDictModuleBase):
        module = TensorDictModule(network, [("agents", "observation")], [("agents", "logits")])
    return ProbabilisticActor(
        module,
        in_keys={"logits": ("agents", "logits")},
        out_keys=[("agents", "action")],
        distribution_class=Categorical,
        return_log_prob=True,
        log_prob_key=("agents", "action_log_prob"),
    )
