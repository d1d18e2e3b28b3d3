"""Parts in any pair: they fit and learn, or say in one line why not; docs/parts.md says the same."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contracts.pairs import FITS, LOSSES, critics, names, outcome, pairs
from tests.programs.pairs import committed, committed_outcomes, tables

WRITTEN = committed_outcomes()
ROWS = list(dict.fromkeys((algorithm, row) for algorithm, row, *_ in pairs()))
ALGORITHMS = list(dict.fromkeys(algorithm for algorithm, _ in ROWS))


def thirds() -> list[Any]:
    """Rows with every third actor, the others ``slow``: each loss has every critic and every actor, and each critic
    meets every actor in one loss. Mixers meet all actors."""
    cases = []
    for algorithm, row in ROWS:
        rows = [name for other, name in ROWS if other == algorithm]
        first = (rows.index(row) + ALGORITHMS.index(algorithm)) % 3
        for third in range(3):
            marks = [pytest.mark.slow] if third != first and algorithm in LOSSES else []
            cases.append(pytest.param(algorithm, row, third, marks=marks, id=f"{algorithm}-{row}-{third}"))
    return cases


@pytest.mark.parametrize(("algorithm", "row", "third"), thirds())
def test_every_actor_fits_or_is_refused_in_one_line_as_the_page_says(algorithm: str, row: str, third: int) -> None:
    found, expected = {}, {}
    for other, name, actor, overrides in pairs():
        if (other, name) == (algorithm, row) and names("network").index(actor) % 3 == third:
            found[actor] = outcome(algorithm, actor, *overrides)
            expected[actor] = WRITTEN.get((algorithm, row, actor), "nothing")
    assert found
    assert found == expected, "run python -m tests.programs.pairs"


def test_every_configuration_of_a_critic_fits_somewhere() -> None:
    for critic in names("critic"):
        assert any(WRITTEN.get((loss, critic, "mlp")) == FITS for loss in LOSSES), critic
    for (algorithm, row, actor), written in WRITTEN.items():
        if (
            algorithm in ("mappo", "maddpg")
            and row in critics(algorithm)
            and "," not in row
            and actor in ("mlp", "gru")
        ):
            assert written == FITS, (algorithm, row, actor, written)


def test_the_page_has_these_tables_and_no_others() -> None:
    assert list(WRITTEN) == [(algorithm, row, actor) for algorithm, row, actor, _ in pairs()]
    assert committed().strip() == tables(WRITTEN).strip(), "run python -m tests.programs.pairs"
