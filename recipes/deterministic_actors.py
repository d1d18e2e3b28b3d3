"""A deterministic actor from a network's configuration."""

from __future__ import annotations

from typing import Any

from ctde_kit.recipes.networks import GRUNetwork, MLPNetwork

from ctde_kit.modules import MultiAgentDeterministicActor, own_observation
from ctde_kit.specs import GroupSpec


def deterministic_actor(
    group: GroupSpec, network: MLPNetwork | GRUNetwork, exploration: Any, *, temperature: float
) -> MultiAgentDeterministicActor:
    """One group's actor, decentralized, with exploration noise of its own."""
    inputs = own_observation(group, agent_id=network.agent_id, normalize=network.normalize)
    outputs = network.build(inputs.features, group.action.vector_dim, group.n_agents)
    noise = exploration.build(group)
    return MultiAgentDeterministicActor(group, inputs, outputs, noise, temperature=temperature)
