"""Where the members of a population meet: who has come, and whose critics the others get."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ctde_kit.errors import UserError
from ctde_kit.files import JsonObject


@dataclass(frozen=True)
class Scored:
    """A member comes to exchange critics.

    Args:
        frames: that it has collected.
        updates: gradient steps that it has made.
        scores: by the name of each figure that decides, how good its policy is; more is better.
        critics: by the same names, what the others get if this member is the best by that figure.

    >>> from ctde_kit.distributed import Scored
    >>> Scored(frames=6000, updates=500, scores={"return_mean": 0.7}).critics
    {}
    """

    frames: int
    updates: int
    scores: Mapping[str, float]
    critics: Mapping[str, Any] = field(default_factory=dict)  # what a figure's critics are, the room need not know


@dataclass(frozen=True)
class Saved:
    """A member has written a checkpoint, and waits until all have.

    Args:
        frames: that it has collected.

    >>> from ctde_kit.distributed import Saved
    >>> Saved(frames=6000)
    Saved(frames=6000)
    """

    frames: int


@dataclass(frozen=True)
class Exchange:
    """What came of a meeting to exchange critics.

    Args:
        number: of the exchange, from 1.
        frames: that each member had collected.
        updates: gradient steps that each member had made, by rank.
        scores: of the members by rank, for each figure.
        best: the member with the highest score, for each figure; of equally good ones the one with the lower rank.

    >>> from ctde_kit.distributed import Exchange
    >>> scores = {"return_mean": {0: 0.5, 1: 0.7}}
    >>> Exchange(1, 6000, {0: 500, 1: 500}, scores, {"return_mean": 1}).record()["best"]
    {'return_mean': 1}
    """

    number: int
    frames: int
    updates: Mapping[int, int]
    scores: Mapping[str, Mapping[int, float]]
    best: Mapping[str, int]

    def record(self) -> JsonObject:
        """As a line of a file."""
        scores = {name: [*of.items()] for name, of in self.scores.items()}
        return {
            "number": self.number,
            "frames": self.frames,
            "updates": [*self.updates.items()],
            "scores": scores,
            "best": dict(self.best),
        }


class MeetingRoom:
    """Waits until all members of a population have come, and says whose critics go to the others.

    What comes of a meeting depends on what the members bring, never on who comes first. A member that has ended is not
    waited for.

    Args:
        members: how many.
        held: how many exchanges there were, where a population goes on.

    >>> from ctde_kit.distributed import MeetingRoom, Scored
    >>> room = MeetingRoom(members=3)
    >>> for rank, score in [(2, 0.7), (0, 0.5), (1, 0.7)]:
    ...     room.enter(rank, Scored(frames=6000, updates=500, scores={"return_mean": score}))
    >>> room.all_are_here()
    True
    >>> exchange = room.exchange()
    >>> exchange.number, exchange.best, room.all_are_here()
    (1, {'return_mean': 1}, False)
    """

    def __init__(self, members: int, held: int = 0) -> None:
        self.present: dict[int, Scored | Saved] = {}
        self.absent = set(range(members))
        self.held = held

    def enter(self, rank: int, reason: Scored | Saved) -> None:
        """A member comes, and waits."""
        self.absent.remove(rank)
        self.present[rank] = reason

    def leave_for_good(self, rank: int) -> None:
        """A member has ended."""
        self.absent.remove(rank)

    def all_are_here(self) -> bool:
        """Whether there is anyone to meet, and nobody to wait for."""
        return bool(self.present) and not self.absent

    def waits_for_checkpoints(self) -> bool:
        """Whether those who are here have written checkpoints.

        Raises:
            UserError: where members have come at different points of their runs, or for different reasons.
        """
        points = {(type(reason).__name__, reason.frames) for reason in self.present.values()}
        if len(points) > 1:
            shown = ", ".join(f"{name} at {frames} frames" for name, frames in sorted(points, key=str))
            raise UserError(f"the members of a population are not in step ({shown}): give all of them the same options")
        return isinstance(next(iter(self.present.values())), Saved)

    def exchange(self) -> Exchange:
        """Hold the meeting of those who have come to exchange critics; then all of them are gone."""
        came = {rank: reason for rank, reason in sorted(self.present.items()) if isinstance(reason, Scored)}
        first = next(iter(came.values()))
        scores = {figure: {rank: reason.scores[figure] for rank, reason in came.items()} for figure in first.scores}
        self.held += 1
        updates = {rank: reason.updates for rank, reason in came.items()}
        best = {figure: best_of(of) for figure, of in scores.items()}
        self.dismiss()
        return Exchange(self.held, first.frames, updates, scores, best)

    def dismiss(self) -> None:
        """All who are here go on with their runs."""
        self.absent |= self.present.keys()
        self.present = {}


def best_of(scores: Mapping[int, float]) -> int:
    """The rank with the highest score; of equal ones the lower rank. A score that is no number is below all others."""
    return min(scores, key=lambda rank: (-_comparable(scores[rank]), rank))


def _comparable(score: float) -> float:
    return -math.inf if math.isnan(score) else score
