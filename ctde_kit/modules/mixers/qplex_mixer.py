"""QPLEX's mixer: any team value whose best joint action consists of each agent's best action."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDictBase
from torch import Tensor

from ctde_kit.keys import CHOSEN_ACTION_VALUE
from ctde_kit.modules.keyword_calls import keyword_calls
from ctde_kit.modules.mixers.mixing import (
    StateMixer,
    check_actions,
    hypernetwork,
    team_actions,
    team_alive,
    team_values,
)
from ctde_kit.modules.networks.inputs import Input
from ctde_kit.specs import TeamSpec

SMALLEST = 1e-6


class QPLEXMixer(StateMixer):
    """The team's value from each agent's value and advantage, scaled by state and joint action (QPLEX).

    Wang et al. 2021, section 3. The state first scales and shifts each agent's value ``V_i = max_a Q_i`` and advantage
    ``A_i = Q_i - V_i <= 0``, by ``w_i(s) > 0`` and ``b_i(s)``. Then ``Q_tot = sum_i V_i + lambda_i(s, a) A_i``. The
    importances ``lambda_i > 0`` are a sum over attention heads: a positive key of the state, times a sigmoid of agent
    and state, times a sigmoid of agent, state and joint action. The greedy joint action consists of each agent's greedy
    action, and every team value with this property can be represented. As in the authors' code, the importances
    multiply advantages without a gradient; the agents learn through ``sum_i Q_i``. Unlike in the authors' code, the
    heads of one attention share their hidden layers.

    Reads ``chosen_action_value`` and ``max_action_value`` ``[*B, n_agents, 1]`` and ``action`` of every group, ``mask``
    if agents die, and the state; writes ``chosen_action_value`` ``[*B, 1]`` at the root. Dead agents add nothing, and
    their actions are not seen.

    Args:
        team: all groups that are mixed.
        state: what the weights depend on; ``None``: ``mixer_state(team)``.
        n_heads: heads of the attention.
        hypernet_cells: widths of the hidden layers of all hypernetworks.

    Raises:
        UserError: for values that are missing or of another shape.

    >>> import torch
    >>> from tensordict import TensorDict
    >>> from ctde_kit.modules import QPLEXMixer
    >>> from ctde_kit.specs import ActionSpec, GroupSpec, TeamSpec
    >>> team = TeamSpec((GroupSpec("agents", 3, 5, ActionSpec("categorical", (4,))),), state_dim=7)
    >>> agents = {"chosen_action_value": torch.ones(2, 3, 1), "max_action_value": torch.ones(2, 3, 1)}
    >>> agents["action"] = torch.zeros(2, 3, dtype=torch.long)
    >>> QPLEXMixer(team)(TensorDict({"agents": agents, "state": torch.ones(2, 7)}, [2]))["chosen_action_value"].shape
    torch.Size([2, 1])
    """

    def __init__(
        self, team: TeamSpec, state: Input | None = None, *, n_heads: int = 10, hypernet_cells: Sequence[int] = (64,)
    ):
        super().__init__(team, state, (CHOSEN_ACTION_VALUE, "max_action_value", "action"))
        for group in team:
            check_actions(group)
        self.n_heads = n_heads
        features, per_agent = self.state.features, n_heads * self.n_agents
        choices = sum(group.n_agents * group.action.sizes[0] for group in team)
        self.scale = hypernetwork(features, self.n_agents, hypernet_cells)
        self.shift = hypernetwork(features, self.n_agents, hypernet_cells)
        self.head_keys = hypernetwork(features, n_heads, hypernet_cells)
        self.agent_attention = hypernetwork(features, per_agent, hypernet_cells)
        self.action_attention = hypernetwork(features + choices, per_agent, hypernet_cells)

    @keyword_calls()
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        chosen = team_values(tensordict, self.team, CHOSEN_ACTION_VALUE)
        best = team_values(tensordict, self.team, "max_action_value")
        state = self.state(tensordict).squeeze(-2)
        scale = self.scale(state).abs() + SMALLEST
        shift = self.shift(state).masked_fill(~team_alive(tensordict, self.team), 0)
        advantage = (scale * (chosen - best)).detach()
        importance = self.importance(state, team_actions(tensordict, self.team))
        total = scale * chosen + shift + (importance - 1) * advantage
        return tensordict.set(CHOSEN_ACTION_VALUE, total.sum(-1, keepdim=True))

    def importance(self, state: Tensor, actions: Tensor) -> Tensor:
        """``lambda_i(s, a) > 0``, ``[*B, N]``, of state ``[*B, S]`` and one-hot joint actions ``[*B, sum(n * A)]``."""
        heads = (self.n_heads, self.n_agents)
        key = self.head_keys(state).abs().unsqueeze(-1) + SMALLEST
        agent = self.agent_attention(state).sigmoid().unflatten(-1, heads)
        action = self.action_attention(torch.cat([state, actions], -1)).sigmoid().unflatten(-1, heads)
        return (key * agent * action).sum(-2)
