"""Q actors from a network's configuration."""

from __future__ import annotations

from ctde_kit.recipes.networks import NetworkConfig

from ctde_kit.modules import MultiAgentQActor, own_observation
from ctde_kit.modules.q_actor import check_discrete
from ctde_kit.specs import GroupSpec


def q_actor(group: GroupSpec, network: NetworkConfig, *, last_action: bool, epsilon: float) -> MultiAgentQActor:
    """An actor of one group, decentralized unless its network has a channel."""
    check_discrete(group)
    inputs = own_observation(group, agent_id=network.agent_id, last_action=last_action, normalize=network.normalize)
    values = network.build(inputs.features, group.action.sizes[0], group.n_agents)
    return MultiAgentQActor(group, inputs, values, epsilon)
