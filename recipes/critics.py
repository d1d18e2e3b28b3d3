"""Critics as configurations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ctde_kit.recipes.checks import check_choice
from omegaconf import MISSING

from ctde_kit.errors import UserError
from ctde_kit.modules import ActionValueCritic, AgentNetwork, action_value_critic, value_critic
from ctde_kit.specs import GroupSpec, TeamSpec


@dataclass
class ValueCriticConfig:
    """A critic's layout, of states (MAPPO) or of joint actions (MADDPG).

    Args:
        sees: each agent's own `observation`, all observations of the `team`, the root `state`, or `agent_state`.
        heads: for team and state: `one` value for all, one output an `agent`, or a `network` an agent.
        network: its network.
    """

    sees: str = "team"
    heads: str = "agent"
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

    def build(self, team: TeamSpec, group: GroupSpec) -> AgentNetwork:
        """A critic of states."""
        return value_critic(
            team,
            group,
            self.network.build,
            sees=self.sees,  # type: ignore[arg-type]
            heads=self.heads,  # type: ignore[arg-type]
            agent_id=self.network.agent_id,
            normalize=self.network.normalize,
        )

    def build_action_value(self, team: TeamSpec, group: GroupSpec) -> ActionValueCritic:
        """A critic that sees actions, too: everyone's, or each agent's own where it sees its own observation."""
        if self.network.normalize:
            raise UserError("critic.network.normalize=true: a critic of actions takes them as they are; leave it out")
        return action_value_critic(
            team,
            group,
            self.network.build,
            sees=self.sees,  # type: ignore[arg-type]
            heads=self.heads,  # type: ignore[arg-type]
            agent_id=self.network.agent_id,
        )
