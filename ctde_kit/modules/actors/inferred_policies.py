"""MADDPG's models of the other agents' policies, learned from their actions (Lowe et al. 2017, section 4.2)."""

from __future__ import annotations

from tensordict import TensorDictBase
from torch import Tensor, nn

from ctde_kit.keys import Key
from ctde_kit.modules.networks.agent_network import NetworkFactory
from ctde_kit.modules.networks.inputs import Input, own_observation
from ctde_kit.modules.typed_containers import all_of
from ctde_kit.specs import TeamSpec


class InferredPolicies(nn.Module):
    """Each agent's predictions of all agents' policies, from the others' observations (Lowe et al. 2017, section 4.2).

    Args:
        team: all groups.
        make_network: ``(in_features, out_features, n_agents) -> network``, feed-forward. With separate weights per
            agent, each pair of an observing and an observed agent has its own, as in the paper; with shared weights,
            all pairs of the same two groups share them.

    >>> from functools import partial
    >>> import torch
    >>> from tensordict import TensorDict
    >>> from ctde_kit.modules import InferredPolicies, MultiAgentMLP
    >>> from ctde_kit.specs import ActionSpec, GroupSpec, TeamSpec
    >>> team = TeamSpec((GroupSpec("agents", 3, 5, ActionSpec("categorical", (4,))),))
    >>> inferred = InferredPolicies(team, partial(MultiAgentMLP, share_params=False))
    >>> inferred(TensorDict({"agents": {"observation": torch.zeros(2, 3, 5)}}, [2]), "agents", "agents").shape
    torch.Size([2, 3, 3, 4])
    """

    def __init__(self, team: TeamSpec, make_network: NetworkFactory):
        super().__init__()
        self.team = team
        self.inputs = nn.ModuleDict({group.name: own_observation(group) for group in team})
        self.networks = nn.ModuleDict(
            {
                f"{observer.name}_of_{other.name}": make_network(
                    other.observation_dim, other.action.vector_dim, observer.n_agents * other.n_agents
                )
                for observer in team
                for other in team
            }
        )

    @property
    def in_keys(self) -> list[Key]:
        """What it reads: all observations."""
        return [key for group_input in all_of(self.inputs.values(), Input) for key in group_input.in_keys]

    def forward(self, tensordict: TensorDictBase, observer: str, other: str) -> Tensor:
        """Logits, or actions before squashing, ``[*B, n_observers, n_others, D]``: row i is agent i's prediction."""
        seen = self.inputs[other](tensordict)
        n_observers, n_others = self.team[observer].n_agents, self.team[other].n_agents
        repeated = seen.unsqueeze(-3).expand(*seen.shape[:-2], n_observers, *seen.shape[-2:]).flatten(-3, -2)
        return self.networks[f"{observer}_of_{other}"](repeated).unflatten(-2, (n_observers, n_others))
