"""Parts in any pair: they fit and learn, or say in one line why not; docs/parts.md says the same."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contracts.pairs import FITS, LOSSES, critics, names, outcome, pairs
from tests.programs.pairs import committed, committed_outcomes, tables

WRITTEN = committed_outcomes()
ROWS = list(dict.fromkeys((algorithm, row) for algorithm, row, *_ in pairs()))
ALGORITHMS = list(dict.fromkeys(algorithm for algorithm, _ in ROWS))


def halves() -> list[Any]:
    """Rows with every second actor, the others ``slow``: each loss has every critic and every actor, and each critic
    meets every actor in one loss or two. Mixers meet all actors."""
    cases = []
    for index, (algorithm, row) in enumerate(ROWS):
        first = (index + ALGORITHMS.index(algorithm)) % 2
        for half in (0, 1):
            marks = [pytest.mark.slow] if half != first and algorithm in LOSSES else []
            cases.append(pytest.param(algorithm, row, half, marks=marks, id=f"{algorithm}-{row}-{half}"))
    return cases


@pytest.mark.parametrize(("algorithm", "row", "half"), halves())
def test_every_actor_fits_or_is_refused_in_one_line_as_the_page_says(algorithm: str, row: str, half: int) -> None:
    for other, name, actor, overrides in pairs():
        if (other, name) == (algorithm, row) and names("network").index(actor) % 2 == half:
            expected = WRITTEN.get((algorithm, row, actor), "nothing")
            assert outcome(algorithm, actor, *overrides) == expected, "run python -m tests.programs.pairs"


def test_every_configuration_of_a_critic_fits_somewhere() -> None:
    for critic in names("critic"):
        assert any(WRITTEN[loss, critic, "mlp"] == FITS for loss in LOSSES), critic
    for (algorithm, row, actor), written in WRITTEN.items():
        if algorithm in ("mappo", "maddpg") and row in critics() and "," not in row and actor in ("mlp", "gru"):
            assert written == FITS, (algorithm, row, actor, written)


def test_the_page_has_these_tables_and_no_others() -> None:
    assert list(WRITTEN) == [(algorithm, row, actor) for algorithm, row, actor, _ in pairs()]
    assert committed().strip() == tables(WRITTEN).strip(), "run python -m tests.programs.pairs"
