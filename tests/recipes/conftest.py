"""What the tests of recipes share."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def _no_curves(no_curves: None) -> None:
    """Curves are looked at in ``tests/training/test_runner.py``."""
