"""Predictions of one agent's action from another's, for bounds of the mutual information between them."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from ctde_kit.errors import UserError
from ctde_kit.keys import Key
from ctde_kit.modules.networks.agent_network import NetworkFactory
from ctde_kit.modules.networks.inputs import Input, own_observation
from ctde_kit.modules.typed_containers import all_of
from ctde_kit.specs import GroupSpec, TeamSpec


class ActionPredictors(nn.Module):
    """For each pair of agents, what distribution the action of one has, given the other's action and both observations.

    It is the variational distribution q(a_i|a_j, s) of Kim et al. 2020, "A Maximum Mutual Information Framework for
    Multi-Agent Reinforcement Learning". Actions of policies that read their own observation and a latent of the team
    depend on nothing else of the state, so both observations are all that the prediction needs; those of recurrent
    policies and of agents that talk depend on more.

    Args:
        team: the groups whose agents predict each other.
        make_network: ``(in_features, out_features, n_agents) -> network``, feed-forward. With separate weights per
            agent, each ordered pair has its own; with shared ones, all pairs of the same two groups share them.

    Raises:
        UserError: for a single agent.

    >>> from functools import partial
    >>> import torch
    >>> from tensordict import TensorDict
    >>> from ctde_kit.modules import ActionPredictors, MultiAgentMLP
    >>> from ctde_kit.specs import ActionSpec, GroupSpec, TeamSpec
    >>> team = TeamSpec((GroupSpec("agents", 3, 5, ActionSpec("categorical", (4,))),))
    >>> predictors = ActionPredictors(team, partial(MultiAgentMLP, share_params=False))
    >>> data = TensorDict({"agents": {"observation": torch.zeros(2, 3, 5)}}, [2])
    >>> predictors(data, "agents", "agents", torch.zeros(2, 3, 4)).shape
    torch.Size([2, 3, 3, 4])
    """

    def __init__(self, team: TeamSpec, make_network: NetworkFactory):
        super().__init__()
        if sum(group.n_agents for group in team) < 2:
            raise UserError("ActionPredictors: team has a single agent, whose action has nothing to depend on")
        self.team = team
        self.inputs = nn.ModuleDict({group.name: own_observation(group) for group in team})
        self.networks = nn.ModuleDict(
            {
                _name(given.name, predicted.name): make_network(
                    given.observation_dim + given.action.vector_dim + predicted.observation_dim,
                    predicted.action.n_parameters,
                    given.n_agents * predicted.n_agents,
                )
                for given in team
                for predicted in team
                if given.name != predicted.name or given.n_agents > 1
            }
        )

    @property
    def in_keys(self) -> list[Key]:
        """What it reads beside the actions: all observations."""
        return [key for group_input in all_of(self.inputs.values(), Input) for key in group_input.in_keys]

    def forward(self, tensordict: TensorDictBase, given: str, predicted: str, action: Tensor) -> Tensor:
        """Logits, or location and scale before softplus, ``[*K, *B, n_given, n_predicted, P]``.

        Row j is given agent j's action.

        Args:
            tensordict: the observations, ``[*B]``.
            given: the group whose actions are given.
            predicted: the group whose actions are predicted.
            action: the given actions as vectors, ``[*K, *B, n_given, D]``.
        """
        batch = action.shape[:-2]
        seen, theirs = (self.inputs[name](tensordict) for name in (given, predicted))
        n_given, n_predicted = seen.shape[-2], theirs.shape[-2]
        own = torch.cat([seen.expand(*batch, *seen.shape[-2:]), _in_halves(self.team[given], action)], -1)
        own = own.unsqueeze(-2).expand(*batch, n_given, n_predicted, own.shape[-1])
        theirs = theirs.unsqueeze(-3).expand(*batch, n_given, n_predicted, theirs.shape[-1])
        pairs = torch.cat([own, theirs], -1).flatten(-3, -2)
        return self.networks[_name(given, predicted)](pairs).unflatten(-2, (n_given, n_predicted))


def _name(given: str, predicted: str) -> str:
    return f"{given}_predicts_{predicted}"


def _in_halves(group: GroupSpec, action: Tensor) -> Tensor:
    """Continuous actions in halves of their range, from -1 to 1; others as they are."""
    if group.action.discrete:
        return action
    low, high = (
        torch.tensor(bound, dtype=action.dtype, device=action.device) for bound in (group.action.low, group.action.high)
    )
    return (2 * action - low - high) / (high - low)
