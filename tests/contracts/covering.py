"""Combinations of parts for the default run: any three choices meet in one of them; the others are ``slow``."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest

STRENGTH = 3


def combinations(**axes: Sequence[Any]) -> pytest.MarkDecorator:
    """Parametrize a test with every combination of its arguments' values.

    >>> mark = combinations(kind=["one_hot", "continuous"], recurrent=[False, True])
    >>> [case.id for case in mark.args[1]]
    ['one_hot-False', 'one_hot-True', 'continuous-False', 'continuous-True']
    """
    every = list(itertools.product(*(range(len(values)) for values in axes.values())))
    chosen = covering(every)
    cases = []
    for picked in every:
        values = [axis[index] for axis, index in zip(axes.values(), picked, strict=True)]
        marks = [] if picked in chosen else [pytest.mark.slow]
        cases.append(pytest.param(*values, marks=marks, id="-".join(map(_name, values))))
    return pytest.mark.parametrize(tuple(axes), cases)


def covering(every: Sequence[tuple[int, ...]]) -> set[tuple[int, ...]]:
    """Few of the combinations, which hold every choice of ``STRENGTH`` values that all of them hold."""
    missing = {picked: _choices(picked) for picked in every}
    chosen: set[tuple[int, ...]] = set()
    while any(missing.values()):
        best = max(missing, key=lambda picked: len(missing[picked]))
        chosen.add(best)
        met = missing.pop(best)
        for choices in missing.values():
            choices -= met
    return chosen


def _choices(picked: tuple[int, ...]) -> set[tuple[tuple[int, int], ...]]:
    return set(itertools.combinations(enumerate(picked), min(STRENGTH, len(picked))))


def _name(value: Any) -> str:
    return "none" if value is None else str(value).replace(" ", "")
