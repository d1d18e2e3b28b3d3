"""Stochastic actors from a network's configuration."""

from __future__ import annotations

from ctde_kit.recipes.networks import NetworkConfig

from ctde_kit.errors import UserError
from ctde_kit.modules import LearnedScale, MultiAgentActor, own_observation
from ctde_kit.specs import GroupSpec


def stochastic_actor(group: GroupSpec, network: NetworkConfig, *, state_dependent_scale: bool) -> MultiAgentActor:
    """An actor, decentralized unless its network has a channel.

    The deviation of continuous actions is a parameter unless it depends on the state.
    """
    inputs = own_observation(group, agent_id=network.agent_id, normalize=network.normalize)
    action = group.action
    if action.discrete and state_dependent_scale:
        raise UserError(f"state_dependent_scale=true: the actions of group {group.name!r} are discrete; leave it out")
    if action.discrete or state_dependent_scale:
        return MultiAgentActor(group, inputs, network.build(inputs.features, action.n_parameters, group.n_agents))
    scale = LearnedScale(action.sizes[0], group.n_agents, network.share_params)
    return MultiAgentActor(group, inputs, network.build(inputs.features, action.sizes[0], group.n_agents), scale)
