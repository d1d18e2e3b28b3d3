"""When members exchange critics."""

from __future__ import annotations

import itertools

import pytest

from ctde_kit.distributed import SyncSchedule
from ctde_kit.errors import UserError

TOTAL = 100_000


def due(schedule: SyncSchedule, step: int = 100, updates_per_step: int = 7) -> list[int]:
    """The counts, in the schedule's unit, at which there is an exchange."""
    counts = []
    for index, frames in enumerate(range(step, TOTAL + 1, step), 1):
        if schedule.is_due(frames, index * updates_per_step):
            counts.append(frames if schedule.unit == "frames" else index * updates_per_step)
    return counts


def test_a_constant_interval() -> None:
    assert due(SyncSchedule(5_000, TOTAL)) == list(range(5_000, TOTAL + 1, 5_000))


def test_an_interval_ends_with_the_iteration_in_which_it_is_over() -> None:
    assert due(SyncSchedule(5_000, TOTAL), step=3_000)[:3] == [6_000, 12_000, 18_000]


@pytest.mark.parametrize(("every", "end_every"), [(1_000, 9_000), (9_000, 1_000)])
def test_the_interval_moves_in_a_straight_line_in_either_direction(every: int, end_every: int) -> None:
    found = due(SyncSchedule(every, TOTAL, end_every=end_every))
    last = 0
    for at in found:
        wanted = every + (end_every - every) * at / TOTAL
        # The first multiple of 100 frames at which the interval of that moment has passed.
        assert wanted <= at - last
        before = every + (end_every - every) * (at - 100) / TOTAL
        assert at - 100 - last < before
        last = at
    gaps = [after - before for before, after in itertools.pairwise(found)]
    assert gaps == sorted(gaps, reverse=every > end_every)
    assert len(found) > 10


def test_updates_are_counted_where_they_are_the_unit() -> None:
    assert due(SyncSchedule(500, TOTAL, unit="updates"))[:3] == [504, 1008, 1512]
    assert due(SyncSchedule(500, TOTAL, unit="updates"), updates_per_step=0) == []


@pytest.mark.parametrize(("every", "end_every"), [(0, None), (10, 0)])
def test_an_interval_below_one_is_refused(every: int, end_every: int | None) -> None:
    with pytest.raises(UserError, match="expected at least 1"):
        SyncSchedule(every, TOTAL, end_every=end_every)
