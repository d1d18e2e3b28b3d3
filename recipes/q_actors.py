"""Q actors from a network's configuration."""

from __future__ import annotations

from ctde_kit.recipes.actor_networks import actor_network
from ctde_kit.recipes.networks import NetworkConfig

from ctde_kit.modules import MultiAgentQActor
from ctde_kit.modules.actors.q_actor import check_discrete
from ctde_kit.specs import GroupSpec, TeamSpec


def q_actor(
    team: TeamSpec, group: GroupSpec, network: NetworkConfig, *, last_action: bool, epsilon: float
) -> MultiAgentQActor:
    """An actor of one group, decentralized unless its network has a channel."""
    check_discrete(group)
    sees = actor_network(team, group, network, lambda one: one.action.sizes[0], last_action=last_action)
    return MultiAgentQActor(group, *sees, epsilon)
