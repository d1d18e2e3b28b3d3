"""Populations, several whole learners that exchange critics, as configurations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ctde_kit.errors import UserError
from ctde_kit.recipes.configs.checks import CheckedConfig, check_choice, check_positive


@dataclass
class SyncConfig(CheckedConfig):
    """What the members of a population exchange, and when.

    Args:
        what: none, or best_critic: the online and target critics of the member whose policy scores highest replace
            those of the others (Distributed Genetic MADDPG); actors stay.
        every: how far apart exchanges are, at the end of an iteration; at the beginning of the run.
        unit: of every and end_every: frames or updates, of each member.
        end_every: how far apart they are at the end, reached in a straight line; null for every.
        moments: what a member's optimizer remembers of critics that are replaced: keep, reset, or copy the best's.
        episodes: greedy episodes of a score, the same ones for all members.

    >>> from ctde_kit.recipes import RayDistribution, SyncConfig
    >>> RayDistribution(members=4, sync=SyncConfig(what="best_critic", end_every=50_000)).sync.every
    5000
    """

    what: str = "none"
    every: int = 5_000
    unit: str = "frames"
    end_every: int | None = None
    moments: str = "keep"
    episodes: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("distributed.sync.what", self.what, ("none", "best_critic"))
        check_choice("distributed.sync.unit", self.unit, ("frames", "updates"))
        check_choice("distributed.sync.moments", self.moments, ("keep", "reset", "copy"))
        check_positive(
            **{
                "distributed.sync.every": self.every,
                "distributed.sync.end_every": self.end_every,
                "distributed.sync.episodes": self.episodes,
            }
        )

    @property
    def exchanges(self) -> bool:
        """Whether members exchange anything."""
        return self.what != "none"


class InPopulation(Protocol):
    """A recipe whose runs may be members of a population."""

    algorithm: str
    normalize_observations: bool
    normalize_rewards: bool


def check_exchange(config: InPopulation, sync: SyncConfig, members: int, *, has_critic: bool) -> None:
    """Raise ``UserError`` where members cannot exchange critics.

    Args:
        config: of the recipe.
        sync: what is exchanged.
        members: how many there are.
        has_critic: whether the recipe has critics.
    """
    if not sync.exchanges:
        return
    option = f"distributed.sync.what={sync.what}"
    if members == 1:
        raise UserError(
            f"{option}: one learner has nobody to exchange with; give distributed.members=4, or leave it out"
        )
    if not has_critic:
        raise UserError(
            f"{option}: {config.algorithm} has no critics; run ctde-maddpg, ctde-masac, ctde-mappo or ctde-coma, or "
            "leave it out for independent members"
        )
    if sync.unit == "updates" and getattr(config, "target_kl", None) is not None:
        raise UserError(
            "distributed.sync.unit=updates: with target_kl members make different numbers of updates in equal time; "
            "give distributed.sync.unit=frames"
        )
    for name in ("normalize_observations", "normalize_rewards"):
        if getattr(config, name):
            raise UserError(
                f"{option}: {name}=true gives each member units of its own, in which the critics of another are wrong; "
                "leave it out"
            )
