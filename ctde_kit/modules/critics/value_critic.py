"""Critics of states, in every layout: whose data they see, and how many values they give."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor, nn

from ctde_kit.errors import UserError
from ctde_kit.modules.argument_checks import built_network, check_team_and_group
from ctde_kit.modules.networks.agent_network import AgentNetwork, NetworkFactory
from ctde_kit.modules.networks.inputs import Input, agent_state, global_state, own_observation, team_observation
from ctde_kit.modules.networks.sizes import OutputSize
from ctde_kit.specs import GroupSpec, TeamSpec

Sees = Literal["observation", "team", "state", "agent_state"]
Heads = Literal["one", "agent", "network"]


class ValuePerAgent(nn.Module):
    """One value per agent, ``[*B, n_agents, 1]``, from ``[*B, n_agents, 1]``, ``[*B, 1, n_agents]`` or ``[*B, 1, 1]``.

    >>> import torch
    >>> ValuePerAgent(3)(torch.zeros(5, 1, 1))[0].shape
    torch.Size([5, 3, 1])
    """

    def __init__(self, n_agents: int):
        super().__init__()
        self.n_agents = n_agents

    def forward(self, value: Tensor) -> tuple[Tensor]:
        if value.shape[-2] == 1:
            value = value.transpose(-1, -2)
        return (value.expand(*value.shape[:-2], self.n_agents, 1),)

    def for_agent(self, agent: int) -> ValuePerAgent:
        """The value of one agent alone."""
        return ValuePerAgent(1)


def value_critic(
    team: TeamSpec,
    group: GroupSpec,
    make_network: NetworkFactory,
    *,
    sees: Sees = "team",
    heads: Heads = "agent",
    agent_id: bool = False,
    normalize: bool = False,
    own_first: bool = False,
) -> AgentNetwork:
    """A critic that writes ``(group, "state_value")`` ``[*B, n_agents, 1]``, in one of the common layouts.

    A value of the team is computed once per team; with one head it is then repeated for each agent (as a view). With
    individual rewards choose one head per agent, or an agent id: one value for all can only learn the agents' mean.
    A recurrent critic keeps its hidden state under the root key ``{group}_critic_hidden``.

    Args:
        team: all groups; a centralized critic sees them all.
        group: the group whose returns it predicts.
        make_network: ``(in_features, out_features, n_agents) -> network``.
        sees: each agent's own ``observation`` (IPPO), all observations of the ``team``, the root ``state``, or
            the agent-specific ``agent_state``.
        heads: for ``team`` and ``state``: ``one`` value for all agents, one output per ``agent``, or one ``network``
            per agent (with separate weights if ``make_network`` shares none).
        agent_id: append the agent's index, with one forward pass per agent, instead of heads.
        normalize: normalize the features.
        own_first: each agent's row begins with its own observation; for ``team`` with one row per agent, that is with
            ``heads="network"`` or an agent id. For a random order see ``RandomOrderCritic``.

    Raises:
        UserError: where the env has no such state, for an unknown ``sees`` or ``heads``, and for ``own_first``
            without one row per agent.

    >>> from ctde_kit.envs.vmas import VmasEnv
    >>> from ctde_kit.modules import MultiAgentMLP, value_critic
    >>> from ctde_kit.specs import TeamSpec
    >>> env = VmasEnv("simple_tag", num_envs=5)
    >>> team = TeamSpec.from_env(env)
    >>> critic = value_critic(team, team["adversary"], MultiAgentMLP)
    >>> critic(env.reset())["adversary", "state_value"].shape
    torch.Size([5, 3, 1])
    """
    check_team_and_group("value_critic", team, group)
    for name, value, words in (("sees", sees, get_args(Sees)), ("heads", heads, get_args(Heads))):
        if value not in words:
            raise UserError(f"value_critic: {name}={value!r}, expected one of {', '.join(words)}")
    check_own_first(own_first, sees, heads, agent_id)
    inputs = _inputs(team, group, sees, heads == "network", agent_id, normalize, own_first)
    outputs = group.n_agents if inputs.n_agents == 1 and heads == "agent" else 1
    return AgentNetwork(
        inputs,
        built_network("value_critic", make_network, inputs.features, outputs, inputs.n_agents),
        [group.keys.state_value],
        hidden_key=group.keys.team_hidden("critic"),
        split=ValuePerAgent(group.n_agents),
        output_size=OutputSize(inputs.n_agents, outputs, "one value per head"),
    )


def check_own_first(own_first: bool, sees: str, heads: str, agent_id: bool) -> None:
    """Raise ``UserError`` where there is no row per agent that could begin with its own observation."""
    if own_first and sees != "team":
        raise UserError(
            f"own_first: a critic with sees={sees!r} stacks no observations; use sees='team', or own_first=False"
        )
    if own_first and heads != "network" and not agent_id:
        raise UserError(
            f"own_first: with heads={heads!r} one row serves all agents, so it cannot begin with each agent's own "
            "observation; use heads='network'"
        )


def _inputs(
    team: TeamSpec, group: GroupSpec, sees: str, repeat: bool, agent_id: bool, normalize: bool, own_first: bool
) -> Input:
    if sees == "observation":
        return own_observation(group, agent_id=agent_id, normalize=normalize)
    if sees == "team":
        return team_observation(team, group, repeat=repeat, agent_id=agent_id, normalize=normalize, own_first=own_first)
    if sees == "state":
        return global_state(team, group, repeat=repeat, agent_id=agent_id, normalize=normalize)
    return agent_state(group, agent_id=agent_id, normalize=normalize)
