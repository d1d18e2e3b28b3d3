"""Actors as configurations: all that is needed to build a group's policy again, whichever recipe trained it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import ctde_kit as ck
from ctde_kit.errors import UserError
from ctde_kit.recipes.configs.actor_networks import actor_network
from ctde_kit.recipes.configs.checks import CheckedConfig
from ctde_kit.recipes.configs.explorations import ExplorationConfig, GaussianExploration
from ctde_kit.recipes.configs.networks import MLPNetwork, NetworkConfig

if TYPE_CHECKING:
    from ctde_kit.protocols import GroupActor
    from ctde_kit.recipes.configs.tasks.task import TaskConfig
    from ctde_kit.specs import GroupSpec, TeamSpec


@dataclass
class ActorConfig(CheckedConfig):
    """A group's actor; this is the base of all actors' configurations."""

    def build(self, group: GroupSpec, team: TeamSpec) -> GroupActor:
        """The actor of ``group``."""
        raise NotImplementedError

    def for_task(self, task: TaskConfig) -> ActorConfig:
        """This configuration with what it needs to know of the task that it acts in."""
        return self


@dataclass
class NetworkActorConfig(ActorConfig):
    """An actor with a network; this is the base of the configurations of actors that can learn.

    Args:
        network: of the actor.
        normalize_observations: it reads observations normalized by running statistics, which are part of it.
    """

    network: NetworkConfig = field(default_factory=MLPNetwork)
    normalize_observations: bool = field(default=False, kw_only=True)

    def build(self, group: GroupSpec, team: TeamSpec) -> GroupActor:
        from torch import nn

        actor = self.build_actor(group, team)
        if self.normalize_observations:
            assert isinstance(actor, nn.Module)
            ck.ObservationNorm(team).attach(actor)
        return actor

    def build_actor(self, group: GroupSpec, team: TeamSpec) -> GroupActor:
        """The actor of ``group``, which reads observations as they are."""
        raise NotImplementedError


@dataclass
class StochasticActorConfig(NetworkActorConfig):
    """A stochastic actor, decentralized unless its network has a channel.

    Args:
        network: of the actor.
        normalize_observations: it reads observations normalized by running statistics, which are part of it.
        state_dependent_scale: whether the network outputs the deviation of continuous actions; false: it is a parameter
            of its own; null: like true, and groups with discrete actions are allowed, too.
        epsilon: share of a uniform choice among the allowed actions at the beginning; null: no such share.
        latent_dim: size of the latent that the team shares while it trains, whose mean it reads otherwise; 0 for none.
        value_head: the network gives the agent's value, too, and is the critic of the policy.
    """

    state_dependent_scale: bool | None = False
    epsilon: float | None = None
    latent_dim: int = 0
    value_head: bool = False

    def build_actor(self, group: GroupSpec, team: TeamSpec) -> GroupActor:
        action, state_dependent = group.action, self.state_dependent_scale is not False
        if action.discrete and self.state_dependent_scale:
            raise UserError(
                f"state_dependent_scale=true: the actions of group {group.name!r} are discrete; leave it out"
            )

        def outputs(one: GroupSpec) -> int:
            of_policy = one.action.n_parameters if one.action.discrete or state_dependent else one.action.sizes[0]
            return of_policy + self.value_head

        scale = None
        if not action.discrete and not state_dependent:
            scale = ck.modules.LearnedScale(action.sizes[0], group.n_agents, self.network.weight_sharing)
        floor = None if self.epsilon is None else ck.modules.EpsilonFloor(group, self.epsilon)
        network = actor_network(team, group, self.network, outputs, latent_dim=self.latent_dim)
        return ck.MultiAgentActor(group, *network, scale, floor, value_head=self.value_head)


@dataclass
class QActorConfig(NetworkActorConfig):
    """An actor that chooses by action values, decentralized unless its network has a channel.

    Args:
        network: of the actor.
        normalize_observations: it reads observations normalized by running statistics, which are part of it.
        last_action: agents see their last action.
        epsilon: probability of a random action at the beginning.
    """

    last_action: bool = False
    epsilon: float = 1.0

    def build_actor(self, group: GroupSpec, team: TeamSpec) -> GroupActor:

        group.check_one_choice("Q-learning")
        network = actor_network(
            team, group, self.network, lambda one: one.action.sizes[0], last_action=self.last_action
        )
        return ck.MultiAgentQActor(group, *network, self.epsilon)


@dataclass
class DeterministicActorConfig(NetworkActorConfig):
    """A deterministic actor with exploration noise of its own, of one or several sub-policies.

    Args:
        network: of the actor.
        normalize_observations: it reads observations normalized by running statistics, which are part of it.
        exploration: its noise.
        temperature: of the softmax whose gradient discrete actions get.
        ensemble_size: sub-policies per agent.
    """

    exploration: ExplorationConfig = field(default_factory=GaussianExploration)
    temperature: float = 1.0
    ensemble_size: int = 1

    def build_actor(self, group: GroupSpec, team: TeamSpec) -> GroupActor:
        noise, network, size = self.exploration.build(group), self.network, self.ensemble_size
        if size == 1:
            single = actor_network(team, group, network, lambda one: one.action.vector_dim)
            return ck.MultiAgentDeterministicActor(group, *single, noise, temperature=self.temperature)
        inputs = partial(ck.own_observation, group, agent_id=network.agent_id, normalize=network.normalize)
        features, outputs = inputs().features, group.action.vector_dim
        return ck.MultiAgentDeterministicActor(
            group,
            inputs(sub_policies=size),
            ck.modules.SubPolicies([network.build(features, outputs, group.n_agents) for _ in range(size)]),
            noise,
            temperature=self.temperature,
            sub_policies=ck.modules.SubPolicyDraw(group, size),
        )
