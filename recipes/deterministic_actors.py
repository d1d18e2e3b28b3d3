"""Deterministic actors from a network's configuration."""

from __future__ import annotations

from typing import Any

from ctde_kit.recipes.networks import GRUNetwork, MLPNetwork

from ctde_kit.modules import MultiAgentDeterministicActor, own_observation
from ctde_kit.specs import GroupSpec, TeamSpec


def deterministic_actors(
    team: TeamSpec, network: MLPNetwork | GRUNetwork, exploration: Any, *, temperature: float, device: str
) -> dict[str, MultiAgentDeterministicActor]:
    """A decentralized actor for each group, with exploration noise of its own."""
    return {group.name: _actor(group, network, exploration, temperature).to(device) for group in team}


def _actor(
    group: GroupSpec, network: MLPNetwork | GRUNetwork, exploration: Any, temperature: float
) -> MultiAgentDeterministicActor:
    inputs = own_observation(group, agent_id=network.agent_id, normalize=network.normalize)
    outputs = network.build(inputs.features, group.action.vector_dim, group.n_agents)
    noise = exploration.build(group)
    return MultiAgentDeterministicActor(group, inputs, outputs, noise, temperature=temperature)
