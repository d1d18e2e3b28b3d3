"""Mutual information in a game in which agreement alone pays, too hot for independent agents to agree."""

from __future__ import annotations

import pytest

from tests.programs.learning.correlation import train_game


@pytest.mark.slow
def test_agents_who_are_paid_for_information_agree_with_and_without_their_latent() -> None:
    found = train_game(1.0, 0)
    assert found["information"] > 0.3
    assert found["bound"] < found["information"] + 0.1
    assert found["agreement"] > 0.9
    assert found["agreement_at_the_mean"] > 0.9
    assert found["information_at_the_mean"] < 1e-6


@pytest.mark.slow
def test_agents_who_are_not_paid_stay_undecided() -> None:
    found = train_game(0.0, 0)
    assert found["information"] < 0.05
    assert found["agreement"] < 0.45
