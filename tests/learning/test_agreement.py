"""Mutual information in a game in which agreement alone pays: what the loss measures, beside the exact information."""

from __future__ import annotations

import pytest

from tests.programs.learning.correlation import train_game


@pytest.mark.slow
def test_agents_who_agree_by_their_latent_have_information_and_the_bound_is_no_more() -> None:
    found = train_game(5.0, 104)
    assert found["information"] > 0.3
    assert 0.2 < found["bound"] < found["information"] + 0.1
    assert found["agreement"] > 0.9
    assert found["information_at_the_mean"] < 1e-6
