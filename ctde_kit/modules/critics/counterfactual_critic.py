"""COMA's critic: the values of all actions of each agent, given what the other agents do."""

from __future__ import annotations

from ctde_kit.errors import UserError
from ctde_kit.keys import Key
from ctde_kit.modules.argument_checks import built_network, check_team_and_group
from ctde_kit.modules.critics.joint_action_input import joint_action_input
from ctde_kit.modules.critics.stored_actions import CriticOfActions
from ctde_kit.modules.critics.value_critic import Sees, check_own_first
from ctde_kit.modules.networks.agent_network import AgentNetwork, NetworkFactory, mixes_agents
from ctde_kit.modules.networks.sizes import OutputSize
from ctde_kit.specs import GroupSpec, TeamSpec

LAYOUTS: tuple[Sees, ...] = ("team", "state", "agent_state")


class CounterfactualCritic(CriticOfActions):
    """A critic that values each agent's alternatives: it writes ``(group, "action_value")`` ``[*B, n_agents, A]``.

    Foerster et al. 2018, "Counterfactual Multi-Agent Policy Gradients", figure 1c: entry ``[i, a]`` is
    ``Q(s, (u_-i, a))``, the team's value if agent i alone takes the action a. One pass gives all of them, because agent
    i's own action is no input of its row. ``counterfactual_critic`` makes the common layouts. Reads what
    ``agent_network`` reads, including actions as vectors: ``(group, "action_vector")`` ``[*B, n_agents, D]``, or where
    there are none, ``(group, "action")``.

    Args:
        group: the group whose actions it values.
        agent_network: writes the values; feed-forward.
        team: all groups whose actions it sees; ``None``: ``group`` alone.

    Raises:
        UserError: for a network that is recurrent or in which agents talk, and where agents do not pick one of N
            actions.

    >>> import torch
    >>> from tensordict import TensorDict
    >>> from ctde_kit.modules import MultiAgentMLP, counterfactual_critic
    >>> from ctde_kit.specs import ActionSpec, GroupSpec, TeamSpec
    >>> team = TeamSpec((GroupSpec("agents", 3, 5, ActionSpec("categorical", (4,))),))
    >>> critic = counterfactual_critic(team, team["agents"], MultiAgentMLP)
    >>> actions = torch.tensor([[0, 1, 2], [3, 1, 2]])  # agent 0 takes another action
    >>> data = TensorDict({"agents": {"observation": torch.zeros(2, 3, 5), "action": actions}}, [2])
    >>> before, after = critic(data)["agents", "action_value"]
    >>> (before == after).all(-1)
    tensor([ True, False, False])
    """

    hidden_key: Key | None = None

    def __init__(self, group: GroupSpec, agent_network: AgentNetwork, *, team: TeamSpec | None = None):
        super().__init__(group, agent_network, team)
        group.check_one_choice("COMA")
        if agent_network.recurrent or mixes_agents(agent_network.network):
            reason = (
                "is recurrent" if agent_network.recurrent else "lets agents hear of each other's actions, their own"
            )
            name = type(agent_network.network).__name__
            raise UserError(f"CounterfactualCritic: the network {name} {reason}; give one such as MultiAgentMLP")


def counterfactual_critic(
    team: TeamSpec,
    group: GroupSpec,
    make_network: NetworkFactory,
    *,
    sees: Sees = "team",
    agent_id: bool = True,
    own_first: bool = False,
) -> CounterfactualCritic:
    """A counterfactual critic, in one of the common layouts.

    Each agent has a row of its own: what ``sees`` says, the actions of all agents of all groups with the agent's own
    action set to 0, and the agent's id. Whether agents share the network's weights is up to ``make_network``.

    Args:
        team: all groups; the critic sees the actions of them all.
        group: the group whose actions it values.
        make_network: ``(in_features, out_features, n_agents) -> network``, such as ``MultiAgentMLP``; feed-forward.
        sees: all observations of the ``team``, the root ``state``, or the agent-specific ``agent_state``.
        agent_id: append the agent's index; without it, agents that share weights are told apart by ``own_first`` or by
            their own state alone.
        own_first: each agent's row begins with its own observation, and its actions with its own, which is 0.

    Raises:
        UserError: where the env has no such state, for an unknown ``sees``, for ``own_first`` without all observations,
            and where agents do not pick one of N actions.

    >>> import torch
    >>> from tensordict import TensorDict
    >>> from ctde_kit.modules import MultiAgentMLP, counterfactual_critic
    >>> from ctde_kit.specs import ActionSpec, GroupSpec, TeamSpec
    >>> team = TeamSpec((GroupSpec("agents", 3, 5, ActionSpec("categorical", (4,))),))
    >>> critic = counterfactual_critic(team, team["agents"], MultiAgentMLP)
    >>> data = {"observation": torch.zeros(2, 3, 5), "action": torch.zeros(2, 3, dtype=torch.int64)}
    >>> critic(TensorDict({"agents": data}, [2]))["agents", "action_value"].shape
    torch.Size([2, 3, 4])
    """
    check_team_and_group("counterfactual_critic", team, group)
    group.check_one_choice("COMA")
    if sees not in LAYOUTS:
        raise UserError(f"counterfactual_critic: sees={sees!r}, expected one of {', '.join(LAYOUTS)}")
    check_own_first(own_first, sees, "network", agent_id)
    inputs, _ = joint_action_input(
        team,
        group,
        sees,
        per_agent=True,
        agent_id=agent_id,
        own_first=own_first,
        hide_own_action=True,
    )
    n_choices = group.action.sizes[0]
    network = AgentNetwork(
        inputs,
        built_network("counterfactual_critic", make_network, inputs.features, n_choices, group.n_agents),
        [group.keys.action_value],
        hidden_key=group.keys.team_hidden("critic"),
        output_size=OutputSize(group.n_agents, n_choices, "the number of actions"),
    )
    return CounterfactualCritic(group, network, team=team)
