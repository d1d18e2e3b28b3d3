"""Attention critics as configurations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import ctde_kit as ck
from ctde_kit.errors import UserError
from ctde_kit.recipes.configs.checks import check_positive
from ctde_kit.recipes.configs.critics import CriticConfig, check_averaging, check_takes_actions
from ctde_kit.recipes.configs.networks import MLPNetwork

if TYPE_CHECKING:
    from ctde_kit import AttentionCritic
    from ctde_kit.specs import GroupSpec, TeamSpec


@dataclass
class AttentionCriticConfig(CriticConfig):
    """A critic of states (MAPPO) or of joint actions (MADDPG) in which agents attend to one another.

    Args:
        embed_dim: features of what is known of an agent.
        n_heads: of the attention, a divisor of embed_dim.
        average_every: updates after which the parameters of critics that are one per agent are averaged; null for
            never.
        network: what follows the attention, a perceptron; its share_params, agent_id and normalize hold for the
            encoders before it, too.

    >>> import ctde_kit as ck
    >>> from ctde_kit.recipes import AttentionCriticConfig, MLPNetwork
    >>> team = ck.TeamSpec.from_env(ck.VmasEnv("simple_tag", num_envs=2))
    >>> critic = AttentionCriticConfig(embed_dim=8, n_heads=2, network=MLPNetwork([16])).build(team, team["agent"])
    >>> critic.out_keys
    [('agent', 'state_value'), ('agent', 'attention_weight')]
    """

    embed_dim: int = 64
    n_heads: int = 4

    def __post_init__(self) -> None:
        check_positive(**{"critic.embed_dim": self.embed_dim, "critic.n_heads": self.n_heads})
        if self.embed_dim % self.n_heads:
            raise UserError(
                f"critic.n_heads={self.n_heads}: expected a divisor of critic.embed_dim={self.embed_dim}; change one"
            )
        if not isinstance(self.network, MLPNetwork):
            raise UserError(
                "critic=attention: what it attends with is feed-forward, agent by agent; use network@critic.network=mlp"
            )
        check_averaging(self.average_every, self.network.weight_sharing)

    def build(self, team: TeamSpec, group: GroupSpec) -> AttentionCritic:
        """A critic of states."""
        return self._critic(team, group, of_actions=False)

    def build_action_value(self, team: TeamSpec, group: GroupSpec) -> AttentionCritic:
        """A critic of the team's actions."""
        check_takes_actions(self.network)
        return self._critic(team, group, of_actions=True)

    def _critic(self, team: TeamSpec, group: GroupSpec, *, of_actions: bool) -> AttentionCritic:
        return ck.AttentionCritic(
            team,
            group,
            self.network.build,
            of_actions=of_actions,
            embed_dim=self.embed_dim,
            n_heads=self.n_heads,
            share_params=self.network.weight_sharing,
            agent_id=self.network.agent_id,
            normalize=self.network.normalize,
        )
