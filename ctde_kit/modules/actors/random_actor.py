"""A policy that acts uniformly at random."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor

from ctde_kit.modules.actors.distributions import MaskedCategorical, MaskedMultiCategorical
from ctde_kit.modules.networks.inputs import entry
from ctde_kit.specs import GroupSpec


class RandomActor(TensorDictModuleBase):
    """Uniformly random actions of one group: within the bounds, or among the allowed choices.

    Reads ``(group, "observation")`` ``[*B, n_agents, F]``, of which it uses only the shape, and, if the group has one,
    the action mask bool ``[*B, n_agents, A]``; writes ``(group, "action")``. An agent that is allowed nothing takes
    action 0, the no-op. It ignores the exploration type. It has no parameters, so it is never trained.

    Args:
        group: the group's spec.

    >>> from ctde_kit.envs.vmas import VmasEnv
    >>> from ctde_kit.modules import RandomActor
    >>> from ctde_kit.specs import TeamSpec
    >>> env = VmasEnv("simple_tag", num_envs=4)
    >>> actor = RandomActor(TeamSpec.from_env(env)["adversary"])
    >>> actor(env.reset())["adversary", "action"].shape
    torch.Size([4, 3, 2])
    """

    decentralized = True
    low: Tensor
    high: Tensor
    in_keys: list[NestedKey]
    out_keys: list[NestedKey]

    def __init__(self, group: GroupSpec):
        super().__init__()
        self.group = group
        self.register_buffer("low", torch.tensor(group.action.low), persistent=False)
        self.register_buffer("high", torch.tensor(group.action.high), persistent=False)
        masks = [group.keys.action_mask] if group.action_mask else []
        self.in_keys, self.out_keys = [group.keys.observation, *masks], [group.keys.action]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        keys = self.group.keys
        like = entry(tensordict, keys.observation)[..., 0]
        mask = entry(tensordict, keys.action_mask) if self.group.action_mask else None
        return tensordict.set(keys.action, self._draw(like, mask))

    def _draw(self, like: Tensor, mask: Tensor | None) -> Tensor:
        action = self.group.action
        if not action.discrete:
            share = torch.rand(*like.shape, action.sizes[0], device=like.device)
            # By rounding, the sum may exceed the bound.
            return torch.minimum(self.low + (self.high - self.low) * share, self.high)
        logits = torch.zeros(*like.shape, sum(action.sizes), device=like.device)
        if action.kind == "multi_discrete":
            return MaskedMultiCategorical(logits, action.sizes, mask).sample()
        return MaskedCategorical(logits, mask, one_hot=action.kind == "one_hot").sample()

    def for_agent(self, agent: int) -> RandomActor:
        """The policy of one agent alone: it reads and writes entries without the agent axis.

        Raises:
            UserError: for an index that the group lacks.
        """
        self.group.check_agent(agent)
        single = RandomActor(self.group)
        if not self.group.action.discrete:
            single.low, single.high = self.low[agent], self.high[agent]
        return single
