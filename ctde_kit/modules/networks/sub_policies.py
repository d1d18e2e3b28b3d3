"""Policies made of several sub-policies, of which each agent follows one an episode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.data import Categorical
from torchrl.envs import TensorDictPrimer

from ctde_kit.errors import UserError
from ctde_kit.keys import IS_INIT, next_key
from ctde_kit.modules.networks.agent_network import is_recurrent
from ctde_kit.specs import GroupSpec


class SubPolicyDraw(TensorDictModuleBase):
    """Draws each agent's sub-policy at an episode's start, uniformly and by itself, and keeps it to the end.

    Lowe et al. 2017, "Multi-Agent Actor-Critic for Mixed Cooperative-Competitive Environments", section 4.3. Reads
    ``is_init`` bool ``[*B, 1]`` and ``(group, "sub_policy")`` int64 ``[*B, n_agents]``, the index before; writes the
    index that holds now, and the same under ``next``: so it is where the env's state is, in checkpoints of the
    collector, and each env has its own. It draws at every step, needed or not, so that a compiled rollout draws the
    same numbers.

    Args:
        group: the group's spec.
        size: how many sub-policies an agent has.

    Raises:
        UserError: for less than one; where ``is_init`` or the index is missing.

    >>> from tensordict import TensorDict
    >>> from ctde_kit.specs import ActionSpec, GroupSpec
    >>> draw = SubPolicyDraw(GroupSpec("agents", 2, 5, ActionSpec("categorical", (4,))), size=3)
    >>> index = torch.tensor([[2, 1], [0, 2]])
    >>> draw(TensorDict({"agents": {"sub_policy": index}, "is_init": torch.zeros(2, 1).bool()}, [2]))[draw.key].tolist()
    [[2, 1], [0, 2]]
    """

    in_keys: list[NestedKey]
    out_keys: list[NestedKey]

    def __init__(self, group: GroupSpec, size: int):
        super().__init__()
        if size < 1:
            raise UserError(f"ensemble_size={size}: expected 1 sub-policy or more")
        self.group, self.size, self.key = group, size, group.keys.sub_policy
        self.in_keys, self.out_keys = [self.key, IS_INIT], [self.key, next_key(self.key)]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        index, is_init = tensordict.get(self.key, None), tensordict.get(IS_INIT, None)
        if index is None or is_init is None:
            raise UserError(
                f"key {IS_INIT if is_init is None else self.key!r} is missing: append torchrl.envs.InitTracker() and "
                "the draw's make_tensordict_primer() to the env"
            )
        index = torch.where(is_init, torch.randint(self.size, index.shape, device=index.device), index)
        tensordict.set(self.key, index)
        return tensordict.set(next_key(self.key), index)

    def make_tensordict_primer(self) -> TensorDictPrimer:
        """The env transform that carries the index."""
        spec = Categorical(self.size, shape=torch.Size((self.group.n_agents,)), dtype=torch.long)
        return TensorDictPrimer({self.key: spec}, expand_specs=True, reset_key="_reset")


class SubPolicies(nn.Module):
    """Several networks of one shape; each agent's output is of the one that its last features choose.

    Maps ``[*B, n_agents, F + K]`` to ``[*B, n_agents, G]``: the last K features are the one-hot index, as
    ``own_observation(group, sub_policies=K)`` appends it, and are not shown to the networks. Recurrent networks share
    one hidden state ``[*B, n_agents, H]``, that of the chosen one: an index changes only where an episode starts, from
    zero. The others get no gradient.

    Args:
        networks: K of them, ``[*B, n_agents, F] -> [*B, n_agents, G]``.

    Raises:
        UserError: for networks with a channel between agents.

    >>> from ctde_kit.modules import MultiAgentMLP
    >>> network = SubPolicies([MultiAgentMLP(5, 2, n_agents=3) for _ in range(4)])
    >>> network(torch.zeros(7, 3, 5 + 4)).shape
    torch.Size([7, 3, 2])
    """

    def __init__(self, networks: Sequence[nn.Module]):
        super().__init__()
        if any(getattr(network, "reads_mask", False) for network in networks):
            raise UserError(
                "sub-policies: with a channel agents would hear what others, who follow another sub-policy, "
                "never say; leave ensemble_size=1, or use a network without a channel (network@actor=mlp or gru)"
            )
        self.networks = nn.ModuleList(networks)
        self.recurrent = is_recurrent(networks[0])
        self.hidden_size: int = getattr(networks[0], "hidden_size", 0)

    def forward(self, x: Tensor, *carried: Tensor) -> Any:
        """Outputs; of one step of recurrent networks, with the hidden state and ``is_init``, what they give."""
        seen, choice = self._split(x)
        return _chosen([network(seen, *carried) for network in self.networks], choice)

    def unroll(self, x: Tensor, hidden: Tensor, is_init: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Steps of recurrent networks along time, as ``MultiAgentGRU.unroll`` has it."""
        seen, choice = self._split(x)
        networks: list[Any] = list(self.networks)
        return _chosen([network.unroll(seen, hidden, is_init) for network in networks], choice)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        size = len(self.networks)
        # Contiguous, as a network alone would see it: then one of them gives the same numbers, bit for bit.
        return x[..., :-size].contiguous(), x[..., -size:]

    def for_agent(self, agent: int) -> SubPolicies:
        """The sub-policies of one agent, on the same storage."""
        networks: list[Any] = list(self.networks)
        return SubPolicies([network.for_agent(agent) for network in networks])


def _chosen(outputs: list[Any], choice: Tensor) -> Any:
    """The sum of ``outputs`` by the one-hot ``choice`` ``[*B, n_agents, K]``, for each part of tuples."""
    if isinstance(outputs[0], tuple):
        return tuple(_chosen(list(parts), choice) for parts in zip(*outputs, strict=True))
    return (torch.stack(outputs, -2) * choice.unsqueeze(-1)).sum(-2)
