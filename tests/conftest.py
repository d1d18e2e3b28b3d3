"""What all tests share."""

from __future__ import annotations

import os

# Tensors are small: a second thread only waits, and beside another program it makes tests many times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Each test draws the same random numbers, alone or among others."""
    torch.manual_seed(0)
