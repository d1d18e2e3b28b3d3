"""Critics as configurations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ctde_kit.recipes.checks import check_choice
from omegaconf import MISSING

from ctde_kit.errors import UserError
from ctde_kit.modules import ActionValueCritic, AgentNetwork, RandomOrderCritic, action_value_critic, value_critic
from ctde_kit.specs import GroupSpec, TeamSpec


@dataclass
class ValueCriticConfig:
    """A critic's layout, of states (MAPPO) or of joint actions (MADDPG).

    Args:
        sees: each agent's own `observation`, all observations of the `team`, the root `state`, or `agent_state`.
        heads: for team and state: `one` value for all, one output an `agent`, or a `network` an agent.
        ordering: how a critic that sees the team stacks the agents: in a `fixed` order, each agent's `own_first`, or in
            a `random` one a sample in updates.
        network: its network.
    """

    sees: str = "team"
    heads: str = "agent"
    ordering: str = "fixed"
    network: Any = MISSING
    _target_: str = "ctde_kit.recipes.critics.ValueCriticConfig"

    def __post_init__(self) -> None:
        check_choice("critic.sees", self.sees, ("observation", "team", "state", "agent_state"))
        check_choice("critic.heads", self.heads, ("one", "agent", "network"))
        if isinstance(self.network, str) or self.network is None:
            raise UserError("critic.network is missing: choose one, such as network@critic.network=mlp")
        if self.sees in ("observation", "agent_state") and self.heads != "agent":
            raise UserError(f"critic.heads={self.heads}: it is for critics that see team or state; leave it out")
        shared = self.network.share_params is True
        if self.sees in ("team", "state") and self.heads != "network" and not shared and not self.network.agent_id:
            raise UserError("critic.network.share_params: one network serves all agents here; use critic.heads=network")
        check_ordering(self.ordering, self.sees, self.heads, self.network.agent_id)

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
        if self.ordering != "random":
            return critic
        if critic.recurrent:
            raise UserError(
                "critic.ordering=random: a recurrent critic of states starts from what it saw in a fixed order; use "
                "network@critic.network=mlp"
            )
        return RandomOrderCritic(team, critic)

    def build_action_value(self, team: TeamSpec, group: GroupSpec) -> ActionValueCritic | RandomOrderCritic:
        """A critic that sees actions, too: everyone's, or each agent's own where it sees its own observation."""
        if self.network.normalize:
            raise UserError("critic.network.normalize=true: a critic of actions takes them as they are; leave it out")
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
