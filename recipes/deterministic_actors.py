"""A deterministic actor from a network's configuration."""

from __future__ import annotations

from functools import partial
from typing import Any

from ctde_kit.recipes.actor_networks import actor_network
from ctde_kit.recipes.networks import NetworkConfig

from ctde_kit.modules import MultiAgentDeterministicActor, SubPolicies, SubPolicyDraw, own_observation
from ctde_kit.specs import GroupSpec, TeamSpec


def deterministic_actor(
    team: TeamSpec,
    group: GroupSpec,
    network: NetworkConfig,
    exploration: Any,
    *,
    temperature: float,
    ensemble_size: int,
) -> MultiAgentDeterministicActor:
    """One group's actor, with exploration noise of its own, and of so many sub-policies."""
    noise = exploration.build(group)
    if ensemble_size == 1:
        plain = actor_network(team, group, network, lambda one: one.action.vector_dim)
        return MultiAgentDeterministicActor(group, *plain, noise, temperature=temperature)
    sees = partial(own_observation, group, agent_id=network.agent_id, normalize=network.normalize)
    features, outputs = sees().features, group.action.vector_dim
    networks = [network.build(features, outputs, group.n_agents) for _ in range(ensemble_size)]
    return MultiAgentDeterministicActor(
        group,
        sees(sub_policies=ensemble_size),
        SubPolicies(networks),
        noise,
        temperature=temperature,
        sub_policies=SubPolicyDraw(group, ensemble_size),
    )
