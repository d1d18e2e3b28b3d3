"""What critics of actions see: observations or states, and the actions of all agents as vectors."""

from __future__ import annotations

import torch
from torch import Tensor

from ctde_kit.entry_tables import GroupEntries, state_entry
from ctde_kit.errors import UserError
from ctde_kit.keys import STATE, Key
from ctde_kit.modules.critics.value_critic import Sees
from ctde_kit.modules.networks.inputs import Input
from ctde_kit.modules.networks.own_first import own_first_columns
from ctde_kit.specs import GroupSpec, TeamSpec

Parts = list[tuple[Key, Key | None, int]]


def joint_action_input(
    team: TeamSpec,
    group: GroupSpec,
    sees: Sees,
    *,
    per_agent: bool,
    agent_id: bool,
    own_first: bool,
    hide_own_action: bool = False,
) -> tuple[Input, int | None]:
    """The input of a critic of actions, and the column of its features at which agent 0's action begins.

    The actions of the group's other agents follow. The column is ``None`` if the critic sees no other agent's action.

    Args:
        team: all groups.
        group: the group whose returns it predicts.
        sees: whose data it sees; with ``observation`` each agent's own action is the only one.
        per_agent: one row per agent, even if the data have no agent axis.
        agent_id: append each agent's one-hot index.
        own_first: each agent's own observation and action are the first of theirs.
        hide_own_action: each agent's own action is 0 in its row.
    """
    state_parts, features, has_rows = _state_parts(team, group, sees)
    actions, n_actions, own_offset = _action_parts(team, group, sees, own_first)
    own_column = None if own_offset is None else features + own_offset
    n_rows = group.n_agents if has_rows or per_agent else 1
    columns = None
    if own_first:
        widths = [[other.observation_dim for other in team], [other.action.vector_dim for other in team]]
        columns = own_first_columns(team, group, widths)
    hidden = None
    if hide_own_action and own_column is not None:
        hidden = _own_action(group, own_column, features + n_actions, same_column=own_first)
    entries = [entry for other in team for entry in GroupEntries.of(other).by_key().values()]
    entries += [] if team.state_dim is None else [state_entry(STATE, team.state_dim)]
    inputs = Input(
        [*state_parts, *actions],
        n_rows,
        features + n_actions,
        agent_id=agent_id,
        decentralized=sees == "observation",
        columns=columns,
        hidden=hidden,
        entries=entries,
    )
    return inputs, own_column


def _own_action(group: GroupSpec, own_column: int, features: int, *, same_column: bool) -> Tensor:
    """Where each agent's own action stands in its row, bool ``[n_agents, features]``."""
    places, width = torch.zeros(group.n_agents, features, dtype=torch.bool), group.action.vector_dim
    for agent, row in enumerate(places):
        begin = own_column + (0 if same_column else agent * width)
        row[begin : begin + width] = True
    return places


def _action_parts(team: TeamSpec, group: GroupSpec, sees: Sees, own_first: bool) -> tuple[Parts, int, int | None]:
    """The actions that a critic sees, how many features they are, and the column where agent 0's action begins.

    The column is ``None`` if the critic sees no other agent's action.
    """
    if sees == "observation":
        return [(group.keys.action_vector, _mask(group), 0)], group.action.vector_dim, None
    sizes = [other.n_agents * other.action.vector_dim for other in team]
    before = 0 if own_first else sum(sizes[: team.groups.index(group)])
    return [(other.keys.action_vector, _mask(other), 2) for other in team], sum(sizes), before


def _mask(group: GroupSpec) -> Key | None:
    return group.keys.mask if group.mask else None


def _state_parts(team: TeamSpec, group: GroupSpec, sees: Sees) -> tuple[Parts, int, bool]:
    """The parts before the actions, how many features they are, and whether they have an agent axis."""
    if sees == "team":
        return [(other.keys.observation, _mask(other), 2) for other in team], team.observation_dim, False
    if sees == "observation":
        return [(group.keys.observation, _mask(group), 0)], group.observation_dim, True
    if sees == "state":
        if team.state_dim is None:
            raise UserError("critic of actions: sees='state': this env writes no root key 'state'; use sees='team'")
        return [(STATE, None, 1)], team.state_dim, False
    if group.state_dim is None:
        raise UserError(
            f"critic of actions: sees='agent_state': this env writes no key {group.keys.state}; append "
            "envs.transforms.AgentState to it, or use sees='team'"
        )
    return [(group.keys.state, _mask(group), 0)], group.state_dim, True
