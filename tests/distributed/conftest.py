"""What tests of processes share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.distributed.ray_runs import RayRun, StartRun
from tests.distributed.two_machines import TwoMachines, why_not


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


@pytest.fixture(scope="module")
def machines() -> Iterator[TwoMachines]:
    if reason := why_not():
        pytest.skip(reason)
    # Ray puts its sockets there, whose paths must be short.
    with tempfile.TemporaryDirectory(prefix="ctde") as path:
        machines = TwoMachines(Path(path) / "ray")
        machines.path.mkdir()
        try:
            machines.begin()
            yield machines
        finally:
            machines.end()
