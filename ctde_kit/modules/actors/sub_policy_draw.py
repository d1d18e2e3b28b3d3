"""Which of its sub-policies each agent follows in an episode."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torchrl.data import Categorical
from torchrl.envs import TensorDictPrimer

from ctde_kit.errors import UserError
from ctde_kit.keys import IS_INIT, next_key
from ctde_kit.modules.networks.primer import primer
from ctde_kit.specs import GroupSpec


class SubPolicyDraw(TensorDictModuleBase):
    """Draws each agent's sub-policy uniformly at an episode's start, and keeps it until the episode ends.

    Lowe et al. 2017, "Multi-Agent Actor-Critic for Mixed Cooperative-Competitive Environments", section 4.3. Reads
    ``is_init`` bool ``[*B, 1]`` and ``(group, "sub_policy")`` int64 ``[*B, n_agents]``, the index of the step before.
    Writes the current index there and under ``next``. So each env has its own index, which the collector's checkpoints
    save with the env's state. It draws numbers at every step, needed or not, so that eager and compiled rollouts
    draw the same.

    Args:
        group: the group's spec.
        size: how many sub-policies each agent has.

    Raises:
        UserError: for a size below 1; where ``is_init`` or the index is missing.

    >>> import torch
    >>> from tensordict import TensorDict
    >>> from ctde_kit.modules import SubPolicyDraw
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
            raise UserError(f"SubPolicyDraw: size={size}: expected 1 sub-policy or more")
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
        return primer({self.key: spec})
