"""Whose critics the others get, whoever comes first."""

from __future__ import annotations

import itertools
import json
import math

import pytest

from ctde_kit.distributed import Exchange, MeetingRoom, Saved, Scored
from ctde_kit.errors import UserError


def held(scores: dict[int, float], order: tuple[int, ...]) -> Exchange:
    room = MeetingRoom(len(scores))
    for rank in order:
        assert not room.all_are_here()
        room.enter(rank, Scored(frames=60, updates=rank, scores={"return": scores[rank]}))
    return room.exchange()


def test_the_order_of_arrival_decides_nothing() -> None:
    scores = {0: 1.0, 1: 3.0, 2: 2.0}
    records = [held(scores, order).record() for order in itertools.permutations(scores)]
    assert all(json.dumps(record) == json.dumps(records[0]) for record in records)
    assert records[0]["best"] == {"return": 1}
    assert records[0]["scores"] == {"return": [(0, 1.0), (1, 3.0), (2, 2.0)]}


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ({0: 1.0, 1: 2.0, 2: 2.0}, 1),
        ({0: math.nan, 1: -5.0, 2: -6.0}, 1),
        ({0: math.nan, 1: math.nan}, 0),
        ({0: -math.inf, 1: math.nan}, 0),
    ],
)
def test_ties_go_to_the_lower_rank_and_what_is_no_number_is_the_worst(scores: dict[int, float], best: int) -> None:
    assert held(scores, tuple(reversed(scores))).best == {"return": best}


def test_each_figure_has_its_own_best_member() -> None:
    room = MeetingRoom(2)
    room.enter(0, Scored(60, 5, {"hunters": 3.0, "prey": -3.0}))
    room.enter(1, Scored(60, 5, {"hunters": 1.0, "prey": -1.0}))
    assert room.exchange().best == {"hunters": 0, "prey": 1}


def test_who_has_ended_is_not_waited_for() -> None:
    room = MeetingRoom(3)
    room.enter(2, Scored(60, 5, {"return": 1.0}))
    room.leave_for_good(0)
    assert not room.all_are_here()
    room.enter(1, Scored(60, 5, {"return": 0.0}))
    exchange = room.exchange()
    assert exchange.best == {"return": 2}
    assert exchange.number == 1
    room.leave_for_good(1)
    room.leave_for_good(2)
    assert not room.all_are_here()


@pytest.mark.parametrize("other", [Saved(60), Scored(120, 5, {"return": 1.0})])
def test_members_that_are_not_in_step_are_an_error(other: Saved | Scored) -> None:
    room = MeetingRoom(2)
    room.enter(0, Scored(60, 5, {"return": 1.0}))
    room.enter(1, other)
    with pytest.raises(UserError, match="not in step"):
        room.waits_for_checkpoints()
