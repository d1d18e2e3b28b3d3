"""Attention critics as configurations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ctde_kit.recipes.checks import check_positive
from ctde_kit.recipes.critics import check_averaging, check_network, check_takes_actions
from ctde_kit.recipes.networks import MLPNetwork
from omegaconf import MISSING

from ctde_kit.errors import UserError
from ctde_kit.modules import AttentionCritic
from ctde_kit.specs import GroupSpec, TeamSpec
from ctde_kit.training import Parts


@dataclass
class AttentionCriticConfig:
    """A critic of states (MAPPO) or of joint actions (MADDPG) in which agents attend to one another.

    Args:
        embed_dim: features of what is known of an agent.
        n_heads: of the attention, a divisor of embed_dim.
        average_every: updates after which the parameters of one critic an agent are averaged; null for never.
        network: what follows the attention, a perceptron; its share_params, agent_id and normalize hold for the
            encoders before it, too.
    """

    embed_dim: int = 64
    n_heads: int = 4
    average_every: int | None = None
    network: Any = MISSING
    _target_: str = "ctde_kit.recipes.attention_critics.AttentionCriticConfig"

    def __post_init__(self) -> None:
        check_network(self.network)
        check_positive(**{"critic.embed_dim": self.embed_dim, "critic.n_heads": self.n_heads})
        if self.embed_dim % self.n_heads:
            raise UserError(
                f"critic.n_heads={self.n_heads}: expected a divisor of critic.embed_dim={self.embed_dim}; change one"
            )
        if not isinstance(self.network, MLPNetwork):
            raise UserError(
                "critic=attention: what it attends with is feed-forward, agent by agent; use network@critic.network=mlp"
            )
        check_averaging(self.average_every, self.network.share_params)

    def build(self, team: TeamSpec, group: GroupSpec) -> AttentionCritic:
        """A critic of states."""
        return self._critic(team, group, of_actions=False)

    def build_action_value(self, team: TeamSpec, group: GroupSpec) -> AttentionCritic:
        """A critic of the team's actions."""
        check_takes_actions(self.network)
        return self._critic(team, group, of_actions=True)

    def _critic(self, team: TeamSpec, group: GroupSpec, *, of_actions: bool) -> AttentionCritic:
        return AttentionCritic(
            team,
            group,
            self.network.build,
            of_actions=of_actions,
            embed_dim=self.embed_dim,
            n_heads=self.n_heads,
            share_params=self.network.share_params,
            agent_id=self.network.agent_id,
            normalize=self.network.normalize,
        )


def attention_critics(parts: Parts) -> dict[str, AttentionCritic]:
    """By group, the critics of a run that attend; their targets are left out."""
    losses: Any = getattr(parts.update, "losses", None)
    found = [] if losses is None else [part for part in losses.modules() if isinstance(part, AttentionCritic)]
    return {critic.group.name: critic for critic in found if any(p.requires_grad for p in critic.parameters())}
