"""Critics as configurations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from ctde_kit.recipes.checks import check_choice, check_positive
from omegaconf import MISSING
from torch import nn

from ctde_kit.errors import UserError
from ctde_kit.modules import ActionValueCritic, AgentNetwork, RandomOrderCritic, action_value_critic, value_critic
from ctde_kit.modules.networks.linear import AgentLinear
from ctde_kit.specs import GroupSpec, TeamSpec
from ctde_kit.training import ParameterAverage
from ctde_kit.training.targets import TargetRule


@dataclass
class ValueCriticConfig:
    """A critic's layout, of states (MAPPO) or of joint actions (MADDPG).

    Args:
        sees: each agent's own `observation`, all observations of the `team`, the root `state`, or `agent_state`.
        heads: for team and state: `one` value for all, one output an `agent`, or a `network` an agent.
        ordering: how a critic that sees the team stacks the agents: in a `fixed` order, each agent's `own_first`, or in
            a `random` one a sample in updates.
        build_state: write the agent-specific state, of a global state or all observations and the agent's own, for
            tasks that have none; for `agent_state`.
        average_every: updates after which the parameters of one critic an agent are averaged; null for never.
        network: its network.
    """

    sees: str = "team"
    heads: str = "agent"
    ordering: str = "fixed"
    build_state: bool = False
    average_every: int | None = None
    network: Any = MISSING
    _target_: str = "ctde_kit.recipes.critics.ValueCriticConfig"

    def __post_init__(self) -> None:
        check_choice("critic.sees", self.sees, ("observation", "team", "state", "agent_state"))
        check_choice("critic.heads", self.heads, ("one", "agent", "network"))
        check_network(self.network)
        if self.sees in ("observation", "agent_state") and self.heads != "agent":
            raise UserError(f"critic.heads={self.heads}: it is for critics that see team or state; leave it out")
        shared = self.network.share_params is True
        if self.sees in ("team", "state") and self.heads != "network" and not shared and not self.network.agent_id:
            raise UserError("critic.network.share_params: one network serves all agents here; use critic.heads=network")
        if self.build_state and self.sees != "agent_state":
            raise UserError(f"critic.build_state=true: it is for critic=agent_state, found critic.sees={self.sees}")
        check_ordering(self.ordering, self.sees, self.heads, self.network.agent_id)
        check_averaging(self.average_every, self.network.share_params)
        if self.heads == "network" and shared and not self.network.agent_id and self.ordering != "own_first":
            raise UserError(
                "critic.heads=network: through one network all agents' rows are alike, so are their values; use "
                "critic.network.share_params=false, critic.network.agent_id=true, critic.ordering=own_first, or "
                "critic.heads=one"
            )

    def build(self, team: TeamSpec, group: GroupSpec) -> AgentNetwork | RandomOrderCritic:
        """A critic of states."""
        critic = value_critic(
            team,
            group,
            self.network.build,
            sees=self.sees,  # type: ignore[arg-type]
            heads=self.heads,  # type: ignore[arg-type]
            agent_id=self.network.agent_id,
            normalize=self.network.normalize,
            own_first=self.ordering == "own_first",
        )
        return RandomOrderCritic(team, critic) if self.ordering == "random" else critic

    def build_action_value(self, team: TeamSpec, group: GroupSpec) -> ActionValueCritic | RandomOrderCritic:
        """A critic that sees actions, too: everyone's, or each agent's own where it sees its own observation."""
        check_takes_actions(self.network)
        critic = action_value_critic(
            team,
            group,
            self.network.build,
            sees=self.sees,  # type: ignore[arg-type]
            heads=self.heads,  # type: ignore[arg-type]
            agent_id=self.network.agent_id,
            own_first=self.ordering == "own_first",
        )
        return RandomOrderCritic(team, critic) if self.ordering == "random" else critic


def check_network(network: Any) -> None:
    """Raise ``UserError`` where no network was chosen."""
    if isinstance(network, str) or network is None:
        raise UserError("critic.network is missing: choose one, such as network@critic.network=mlp")


def check_takes_actions(network: Any) -> None:
    """Raise ``UserError`` where actions would be normalized."""
    if network.normalize:
        raise UserError("critic.network.normalize=true: a critic of actions takes them as they are; leave it out")


def averaging(critic: Any, critics: Iterable[nn.Module], optimizer: torch.optim.Optimizer) -> dict[str, TargetRule]:
    """What follows each update where the configuration ``critic`` asks for averages of its critics' parameters."""
    if critic.average_every is None:
        return {}
    layers = [layer for module in critics for layer in module.modules() if isinstance(layer, AgentLinear)]
    parameters = [parameter for layer in layers for parameter in layer.parameters()]
    return {"average": ParameterAverage(parameters, optimizer, critic.average_every)}


def check_averaging(average_every: int | None, share_params: Any) -> None:
    """Raise ``UserError`` for averages of what is one already, or of clusters."""
    check_positive(**{"critic.average_every": average_every})
    if average_every is not None and share_params is not False:
        raise UserError(
            f"critic.average_every={average_every}: it averages critics of one an agent, found critic.network."
            f"share_params={share_params}; use critic.heads=network critic.network.share_params=false"
        )


def check_ordering(ordering: str, sees: str, heads: str, agent_id: bool) -> None:
    """Raise ``UserError`` for an unknown ordering, and for one that means nothing for such a critic."""
    check_choice("critic.ordering", ordering, ("fixed", "own_first", "random"))
    if ordering != "fixed" and sees != "team":
        raise UserError(
            f"critic.ordering={ordering}: a critic with critic.sees={sees} stacks no observations; leave it out, or "
            "use critic=centralized"
        )
    if ordering == "own_first" and heads != "network" and not agent_id:
        raise UserError(
            f"critic.ordering=own_first: with critic.heads={heads} one row serves all agents; use critic.heads=network"
        )
    if ordering == "random" and heads == "network" and agent_id:
        raise UserError(
            "critic.ordering=random: an agent's id says nothing to a network an agent that sees places change; use "
            "critic.network.agent_id=false, or critic.heads=agent"
        )
