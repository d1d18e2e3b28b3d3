"""Which combinations of parts the default run has."""

from __future__ import annotations

import itertools

from tests.contracts.covering import covering

SIZES = (4, 2, 3, 5, 2)


def choices(combination: tuple[int, ...]) -> set[tuple[tuple[int, int], ...]]:
    return set(itertools.combinations(enumerate(combination), 3))


def test_any_three_choices_meet_in_few_combinations() -> None:
    every = list(itertools.product(*map(range, SIZES)))
    chosen = covering(every)
    assert set().union(*map(choices, chosen)) == set().union(*map(choices, every))
    # At least 4 x 3 x 5, the three largest; all are 240.
    assert 60 <= len(chosen) <= 90


def test_of_two_parts_all_combinations_are_taken() -> None:
    every = list(itertools.product(range(3), range(4)))
    assert covering(every) == set(every)
