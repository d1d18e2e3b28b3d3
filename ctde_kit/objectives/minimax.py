"""Others who do their worst."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from ctde_kit.errors import UserError
from ctde_kit.keys import GroupKeys
from ctde_kit.objectives.joint_actions import frozen, own_rows, values_of_rows


@dataclass(frozen=True)
class MinimaxAdversary:
    """Moves, for each agent by itself, all others' actions one gradient step against its value.

    Li et al. 2019, "Robust Multi-Agent Reinforcement Learning via Minimax Deep Deterministic Policy Gradient" (M3DDPG),
    the one-step linear approximation: ``a_j - epsilon * dQ_i / da_j`` for every ``j != i``, in all
    groups. The step has no gradient of its own, and is not kept within bounds. With ``epsilon`` 0 the formula is
    MADDPG's.

    Args:
        epsilon: the step, in units of action per (return per action).

    Raises:
        UserError: for a negative step.
    """

    epsilon: float

    def __post_init__(self) -> None:
        if self.epsilon < 0:
            raise UserError(f"adversary.epsilon={self.epsilon}: expected 0 or more")

    def __call__(
        self, critic: TensorDictModuleBase, keys: GroupKeys, tensordict: TensorDictBase, own: Tensor
    ) -> dict[str, Tensor]:
        """The joint action ``[*B, n_agents, n_others, D]`` of each group that ``critic`` reads, one row an agent.

        Row i has agent i's action of ``own`` ``[*B, n_agents, D]`` as it is; the others' start from ``tensordict``.
        """
        rows = {}
        for key in critic.in_keys:
            group = GroupKeys(str(key[0]))
            if key == group.action_vector:
                vector = tensordict.get(key)
                shape = (*vector.shape[:-2], own.shape[-2], *vector.shape[-2:])
                mine = group.group == keys.group
                rows[group.group] = own_rows(vector, own) if mine else vector.unsqueeze(-3).expand(shape)
        worse = self._gradient(critic, keys, tensordict, rows)
        is_own = torch.eye(own.shape[-2], dtype=torch.bool, device=own.device).unsqueeze(-1)
        worse[keys.group] = worse[keys.group].masked_fill(is_own, 0)
        return {name: row - self.epsilon * worse[name] for name, row in rows.items()}

    @staticmethod
    def _gradient(
        critic: TensorDictModuleBase, keys: GroupKeys, tensordict: TensorDictBase, rows: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        with torch.enable_grad(), frozen(critic):
            leaves = {name: row.detach().clone().requires_grad_(True) for name, row in rows.items()}
            values = values_of_rows(critic, keys, tensordict.detach(), leaves)
            return dict(zip(leaves, torch.autograd.grad(values.sum(), [*leaves.values()]), strict=True))
