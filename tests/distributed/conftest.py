"""What tests of processes share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.distributed.ray_runs import RayRun, StartRun


@pytest.fixture
def started(tmp_path: Path) -> Iterator[StartRun]:
    """Starts runs in the test's directory; none of their processes outlives the test."""
    running: list[RayRun] = []

    def start(*arguments: str, inside: Sequence[str] = ()) -> RayRun:
        running.append(RayRun(tmp_path, *arguments, inside=inside))
        return running[-1]

    yield start
    for run in running:
        run.kill()
