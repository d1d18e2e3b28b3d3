"""Parts in any pair: they fit and learn, or say in one line why not; the page says the same."""

from __future__ import annotations

import pytest

from tests.contracts.pairs import FITS, LOSSES, committed, critics, names, outcome, pairs, tables

OUTCOMES: dict[tuple[str, str, str], str] = {}
ROWS = list(dict.fromkeys((algorithm, row) for algorithm, row, *_ in pairs()))


@pytest.mark.parametrize(("algorithm", "row"), ROWS, ids=lambda x: x)
def test_every_actor_fits_or_is_refused_in_one_line(algorithm: str, row: str) -> None:
    for other, name, actor, overrides in pairs():
        if (other, name) == (algorithm, row):
            OUTCOMES[algorithm, row, actor] = outcome(algorithm, actor, *overrides)


def test_every_configuration_of_a_critic_fits_somewhere() -> None:
    """Runs after those above, like the next."""
    if len(OUTCOMES) < len(list(pairs())):
        pytest.skip("needs the outcomes of all pairs")
    for critic in names("critic"):
        assert any(OUTCOMES[loss, critic, "mlp"] == FITS for loss in LOSSES), critic
    for (algorithm, row, actor), found in OUTCOMES.items():
        if algorithm in ("mappo", "maddpg") and row in critics() and "," not in row and actor in ("mlp", "gru"):
            assert found == FITS, (algorithm, row, actor, found)


def test_the_page_has_these_tables() -> None:
    if len(OUTCOMES) < len(list(pairs())):
        pytest.skip("needs the outcomes of all pairs")
    assert committed().strip() == tables(OUTCOMES).strip(), "run python -m tests.contracts.pairs"
