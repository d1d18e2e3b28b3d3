"""M3DDPG's adversary: it moves the other agents' actions against each agent's value."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor

from ctde_kit.errors import UserError
from ctde_kit.keys import GroupKeys
from ctde_kit.objectives.maddpg.joint_actions import frozen, own_rows, values_of_rows


@dataclass(frozen=True)
class MinimaxAdversary:
    """M3DDPG's adversary: moves all others' actions one gradient step against each agent's value.

    Li et al. 2019, "Robust Multi-Agent Reinforcement Learning via Minimax Deep Deterministic Policy Gradient" (M3DDPG),
    the one-step linear approximation: ``a_j - epsilon * dQ_i / da_j`` for every ``j != i``, in all
    groups. No gradient flows through the step, and the moved actions are not clipped to their bounds. With
    ``epsilon`` 0 the formula is MADDPG's.

    Args:
        epsilon: the step size, in units of action per (return per action).

    Raises:
        UserError: for a negative step.

    >>> import ctde_kit as ck
    >>> from ctde_kit.objectives import MinimaxAdversary
    >>> env = ck.VmasEnv("navigation", num_envs=2)
    >>> team = ck.TeamSpec.from_env(env)
    >>> group = team["agents"]
    >>> network = ck.MultiAgentMLP(group.observation_dim, group.action.vector_dim, group.n_agents)
    >>> actors = {"agents": ck.MultiAgentDeterministicActor(group, ck.own_observation(group), network)}
    >>> critics = {"agents": ck.action_value_critic(team, group, ck.MultiAgentMLP)}
    >>> loss = ck.MADDPGLoss(actors, critics, gamma=0.9, adversary=MinimaxAdversary(epsilon=0.01))
    >>> loss(env.rollout(3, actors["agents"]))["loss_value"].shape
    torch.Size([])
    """

    epsilon: float

    def __post_init__(self) -> None:
        if self.epsilon < 0:
            raise UserError(f"MinimaxAdversary: epsilon={self.epsilon}: expected 0 or more")

    def __call__(
        self, critic: TensorDictModuleBase, keys: GroupKeys, tensordict: TensorDictBase, own_action: Tensor
    ) -> dict[str, Tensor]:
        """The joint action ``[*B, n_agents, n_others, D]`` of each group that ``critic`` reads, one row per agent.

        Row i holds agent i's action from ``own_action`` ``[*B, n_agents, D]``, unchanged; the others' actions are those
        in ``tensordict``, moved.
        """
        rows = {}
        for key in critic.in_keys:
            group = GroupKeys(str(key[0]))
            if key == group.action_vector:
                vector = tensordict.get(key)
                shape = (*vector.shape[:-2], own_action.shape[-2], *vector.shape[-2:])
                is_own_group = group.group == keys.group
                rows[group.group] = own_rows(vector, own_action) if is_own_group else vector.unsqueeze(-3).expand(shape)
        gradient = self._gradient(critic, keys, tensordict, rows)
        is_own = torch.eye(own_action.shape[-2], dtype=torch.bool, device=own_action.device).unsqueeze(-1)
        gradient[keys.group] = gradient[keys.group].masked_fill(is_own, 0)
        return {name: row - self.epsilon * gradient[name] for name, row in rows.items()}

    @staticmethod
    def _gradient(
        critic: TensorDictModuleBase, keys: GroupKeys, tensordict: TensorDictBase, rows: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        with torch.enable_grad(), frozen(critic):
            leaves = {name: row.detach().clone().requires_grad_(True) for name, row in rows.items()}
            values = values_of_rows(critic, keys, tensordict.detach(), leaves)
            return dict(zip(leaves, torch.autograd.grad(values.sum(), [*leaves.values()]), strict=True))
