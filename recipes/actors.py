"""Stochastic actors from a network's configuration."""

from __future__ import annotations

from ctde_kit.recipes.actor_networks import actor_network
from ctde_kit.recipes.networks import NetworkConfig

from ctde_kit.errors import UserError
from ctde_kit.modules import LearnedScale, MultiAgentActor
from ctde_kit.specs import GroupSpec, TeamSpec


def stochastic_actor(
    team: TeamSpec, group: GroupSpec, network: NetworkConfig, *, state_dependent_scale: bool
) -> MultiAgentActor:
    """An actor, decentralized unless its network has a channel.

    The deviation of continuous actions is a parameter unless it depends on the state.
    """
    action = group.action
    if action.discrete and state_dependent_scale:
        raise UserError(f"state_dependent_scale=true: the actions of group {group.name!r} are discrete; leave it out")

    def outputs(one: GroupSpec) -> int:
        return one.action.n_parameters if one.action.discrete or state_dependent_scale else one.action.sizes[0]

    scale = None
    if not action.discrete and not state_dependent_scale:
        scale = LearnedScale(action.sizes[0], group.n_agents, network.share_params)
    return MultiAgentActor(group, *actor_network(team, group, network, outputs), scale)
