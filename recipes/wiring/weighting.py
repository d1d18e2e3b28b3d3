"""Weighted QMIX's central value, of networks like the actors'."""

from __future__ import annotations

import copy
from typing import Protocol

from ctde_kit.modules import MultiAgentQActor, QMixer
from ctde_kit.objectives import CentralValue
from ctde_kit.recipes.configs.actors import QActorConfig
from ctde_kit.recipes.configs.weightings import NoWeighting, WeightingConfig
from ctde_kit.recipes.wiring.team_channels import share_channel
from ctde_kit.specs import TeamSpec


class WithWeighting(Protocol):
    """A recipe whose errors may be weighted."""

    weighting: WeightingConfig

    def policy(self) -> QActorConfig:
        """What builds an actor."""
        ...


def central_value(cfg: WithWeighting, learning: TeamSpec, mixer: object, device: str) -> CentralValue | None:
    """The central value of the groups that learn, which sees what ``mixer`` sees; ``None`` where there is none."""
    if isinstance(cfg.weighting, NoWeighting):
        return None
    assert isinstance(mixer, QMixer)
    actors = {group.name: cfg.policy().build(group, learning) for group in learning}
    share_channel(actors)
    networks = {name: actor.agent_network for name, actor in actors.items() if isinstance(actor, MultiAgentQActor)}
    central = cfg.weighting.build(learning, networks, copy.deepcopy(mixer.state))
    return None if central is None else central.to(device)
