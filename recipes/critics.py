"""State-value critics as configurations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ctde_kit.recipes.checks import check_choice
from omegaconf import MISSING

from ctde_kit.modules import AgentNetwork, value_critic
from ctde_kit.specs import GroupSpec, TeamSpec


@dataclass
class ValueCriticConfig:
    """A critic's layout.

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

    def build(self, team: TeamSpec, group: GroupSpec) -> AgentNetwork:
        return value_critic(
            team,
            group,
            self.network.build,
            sees=self.sees,  # type: ignore[arg-type]
            heads=self.heads,  # type: ignore[arg-type]
            agent_id=self.network.agent_id,
            normalize=self.network.normalize,
        )
