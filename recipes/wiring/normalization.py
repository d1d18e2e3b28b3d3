"""Running statistics of observations and rewards, where a configuration asks for them."""

from __future__ import annotations

from typing import Protocol

from torch import nn

from ctde_kit.modules import ObservationNorm, RewardNorm, TeamPolicy
from ctde_kit.specs import TeamSpec


class WithNormalization(Protocol):
    """A recipe whose observations and rewards may be normalized."""

    gamma: float
    normalize_observations: bool
    normalize_rewards: bool


def observation_norm(
    cfg: WithNormalization, team: TeamSpec, policy: TeamPolicy, device: str, *readers: nn.Module | None
) -> ObservationNorm | None:
    """Running statistics that normalize what the actors that learn and ``readers`` (critics, mixers) observe.

    Opponents keep those of their own run.

    Args:
        cfg: the recipe's configuration; without ``normalize_observations`` the result is ``None``.
        team: all groups.
        policy: of all groups.
        device: cpu or cuda.
        readers: modules that read observations; losses are made after this call, since they copy modules as target
            networks.
    """
    if not cfg.normalize_observations:
        return None
    norm = ObservationNorm(team).to(device)
    learners = [actor for actor in policy.learners.values() if isinstance(actor, nn.Module)]
    norm.attach(*learners, *(reader for reader in readers if reader is not None))
    return norm


def reward_norm(cfg: WithNormalization, learning: TeamSpec, device: str, *, of_team: bool = False) -> RewardNorm | None:
    """The scale of the rewards of the groups that learn; ``None`` where ``cfg`` does not ask.

    Args:
        cfg: the recipe's configuration.
        learning: the groups that learn.
        device: cpu or cuda.
        of_team: of the team's reward, which mixers and COMA learn.
    """
    return RewardNorm(learning, gamma=cfg.gamma, of_team=of_team).to(device) if cfg.normalize_rewards else None


def one_after_the_other(*parts: nn.Module | None) -> nn.Module:
    """The parts that are not ``None`` as one module, which passes a batch from each to the next, if there are any."""
    given = [part for part in parts if part is not None]
    return given[0] if len(given) == 1 else nn.Sequential(*given)
