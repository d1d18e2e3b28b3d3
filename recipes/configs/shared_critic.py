"""The critic that is its actor's network, as a configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctde_kit.errors import UserError
from ctde_kit.recipes.configs.critics import CriticConfig
from ctde_kit.recipes.configs.distributed_options import DistributionConfig
from ctde_kit.recipes.configs.networks import MLPNetwork

if TYPE_CHECKING:
    from tensordict.nn import TensorDictModuleBase

    from ctde_kit.specs import GroupSpec, TeamSpec


@dataclass
class SharedCriticConfig(CriticConfig):
    """No network of its own: the actor's gives each agent's value beside its policy (MAPPO, IPPO and A2C).

    Args:
        average_every: null; it has no parameters of its own.
        network: unused, leave it as it is; network@actor chooses the network.

    >>> from ctde_kit.recipes import MAPPOConfig, SharedCriticConfig, VmasTask
    >>> task = VmasTask("vmas/navigation", n_envs=2)
    >>> loss = MAPPOConfig(algorithm="ippo", critic=SharedCriticConfig(), task=task).build().update.losses["agents"]
    >>> loss.critic_network is loss.actor_network.agent_network
    True
    """

    @property
    def shares_actor(self) -> bool:
        return True

    def build(self, team: TeamSpec, group: GroupSpec) -> TensorDictModuleBase:
        """Refused: the actor has it already."""
        raise UserError("critic=shared: this recipe's critics are networks of their own; use critic=decentralized")

    def build_action_value(self, team: TeamSpec, group: GroupSpec) -> TensorDictModuleBase:
        """Refused: an actor's network sees no actions."""
        raise UserError(
            "critic=shared: this recipe learns values of joint actions, which the actors' networks do not see; use "
            "critic=centralized or critic=decentralized"
        )


def check_shared(critic: CriticConfig, distributed: DistributionConfig) -> None:
    """Raise ``UserError`` for what a critic needs parameters of its own for, where it is the actor's network."""
    if not critic.shares_actor:
        return
    for name, is_given in (("network", critic.network != MLPNetwork()), ("average_every", critic.average_every)):
        if is_given:
            raise UserError(
                f"critic.{name}: with critic=shared the actor's network gives the values; leave it out, and choose "
                "the network with network@actor and actor.*, or use critic=decentralized"
            )
    if distributed.exchanges_critics:
        raise UserError(
            "critic=shared: distributed.sync.what=best_critic replaces critics and keeps actors, which are one network "
            "here; use critic=decentralized, or leave the exchange out"
        )
