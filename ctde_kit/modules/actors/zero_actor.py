"""A policy that does nothing."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor

from ctde_kit.modules.actors.action_vectors import as_action, masked_logits
from ctde_kit.modules.networks.inputs import entry
from ctde_kit.specs import GroupSpec


class ZeroActor(TensorDictModuleBase):
    """Zero as every action of one group: no force, or choice 0, which in most envs means "do nothing".

    Reads ``(group, "observation")`` ``[*B, n_agents, F]``, of which it uses only the shape, and, if the group has one,
    the action mask bool ``[*B, n_agents, A]``; writes ``(group, "action")``. Where zero is out of bounds, the
    action is the bound nearest to it; where the mask forbids choice 0, the action is the first allowed choice. It has
    no parameters.

    Args:
        group: the group's spec.

    >>> from ctde_kit.envs.vmas import VmasEnv
    >>> from ctde_kit.modules import ZeroActor
    >>> from ctde_kit.specs import TeamSpec
    >>> env = VmasEnv("simple_tag", num_envs=4)
    >>> actor = ZeroActor(TeamSpec.from_env(env)["adversary"])
    >>> actor(env.reset())["adversary", "action"].abs().max()
    tensor(0.)
    """

    decentralized = True
    zero: Tensor
    in_keys: list[NestedKey]
    out_keys: list[NestedKey]

    def __init__(self, group: GroupSpec):
        super().__init__()
        self.group = group
        action = group.action
        zero = torch.zeros(group.n_agents, sum(action.sizes))
        if not action.discrete:
            zero = torch.minimum(torch.maximum(zero, torch.tensor(action.low)), torch.tensor(action.high))
        self.register_buffer("zero", zero, persistent=False)
        masks = [group.keys.action_mask] if group.action_mask else []
        self.in_keys, self.out_keys = [group.keys.observation, *masks], [group.keys.action]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        keys = self.group.keys
        shape = entry(tensordict, keys.observation).shape[:-1]
        mask = entry(tensordict, keys.action_mask) if self.group.action_mask else None
        vector = self.zero.expand(*shape, -1)
        if self.group.action.discrete:
            vector = masked_logits(self.group.action, vector, mask)
        return tensordict.set(keys.action, as_action(self.group.action, vector).clone())

    def for_agent(self, agent: int) -> ZeroActor:
        """The policy of one agent alone: it reads and writes entries without the agent axis.

        Raises:
            UserError: for an index that the group lacks.
        """
        self.group.check_agent(agent)
        single = ZeroActor(self.group)
        single.zero = self.zero[agent]
        return single
