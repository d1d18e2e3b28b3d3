"""A deterministic actor from a network's configuration."""

from __future__ import annotations

from functools import partial
from typing import Any

from ctde_kit.recipes.networks import NetworkConfig

from ctde_kit.modules import MultiAgentDeterministicActor, SubPolicies, SubPolicyDraw, own_observation
from ctde_kit.specs import GroupSpec


def deterministic_actor(
    group: GroupSpec, network: NetworkConfig, exploration: Any, *, temperature: float, ensemble_size: int
) -> MultiAgentDeterministicActor:
    """One group's actor, with exploration noise of its own, and of so many sub-policies."""
    sees = partial(own_observation, group, agent_id=network.agent_id, normalize=network.normalize)
    plain, noise = sees(), exploration.build(group)
    networks = [network.build(plain.features, group.action.vector_dim, group.n_agents) for _ in range(ensemble_size)]
    if ensemble_size == 1:
        return MultiAgentDeterministicActor(group, plain, networks[0], noise, temperature=temperature)
    return MultiAgentDeterministicActor(
        group,
        sees(sub_policies=ensemble_size),
        SubPolicies(networks),
        noise,
        temperature=temperature,
        sub_policies=SubPolicyDraw(group, ensemble_size),
    )
