"""Runs on two machines: the numbers of one machine, a cut link, a killed collector, and what is left behind."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctde_kit.training import latest_checkpoint, read_checkpoint
from tests.distributed.ray_runs import RayRun, StartRun, rows, wait_for
from tests.distributed.test_ray_rollouts import RECIPES
from tests.distributed.two_machines import MACHINES, TwoMachines, why_not
from tests.recipes.command_line import call
from tests.recipes.resuming import same

pytest.importorskip("ray")
pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

TIMEOUT = 5
COLLECTORS = ["mappo", *RECIPES["mappo"], "distributed=ray", "distributed.collectors=2"]


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


@pytest.fixture(scope="module")
def one_machine(machines: TwoMachines, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with both collectors on this machine."""
    path = tmp_path_factory.mktemp("one_machine")
    result = call(path, *COLLECTORS, "distributed.address=local", "hydra.run.dir=run")
    assert result.returncode == 0, result.stderr
    return path / "run"


def begun(machines: TwoMachines, started: StartRun, path: Path, *options: str) -> RayRun:
    """A run with a collector on each machine, which has written its first checkpoint."""
    places = [f"distributed.address={machines.address}", f"distributed.timeout={TIMEOUT}"]
    run = started(*COLLECTORS, *places, *options, "hydra.run.dir=run", inside=machines.inside("first"))
    wait_for(path / "run" / "checkpoints", "frames_500.pt")
    assert [len(machines.hosts(machine)) for machine in MACHINES] == [1, 1]
    return run


def assert_same(ours: Path, theirs: Path) -> None:
    assert rows(ours) == rows(theirs)
    ends = [read_checkpoint(latest_checkpoint(run / "checkpoints"), algorithm="mappo") for run in (ours, theirs)]
    for part in ("parts", "random"):
        assert same(ends[0][part], ends[1][part]), part


def assert_nothing_is_left(machines: TwoMachines, run: RayRun) -> None:
    until = time.monotonic() + 15
    while left := [*run.processes(), *(pid for machine in MACHINES for pid in machines.hosts(machine))]:
        assert time.monotonic() < until, left
        time.sleep(0.1)
    assert machines.living() == len(MACHINES), "the cluster was running before"


def test_two_machines_give_the_numbers_of_one(
    machines: TwoMachines, one_machine: Path, tmp_path: Path, started: StartRun
) -> None:
    run = begun(machines, started, tmp_path)
    errors = run.end()
    assert run.process.returncode == 0, errors
    assert "restart" not in errors
    assert_same(tmp_path / "run", one_machine)
    assert_nothing_is_left(machines, run)


@pytest.mark.parametrize("machine", MACHINES)
def test_a_killed_collector_starts_again_on_its_machine_and_changes_nothing(
    machine: str, machines: TwoMachines, one_machine: Path, tmp_path: Path, started: StartRun
) -> None:
    run = begun(machines, started, tmp_path)
    (killed,) = machines.hosts(machine)
    os.kill(killed, signal.SIGKILL)
    while machines.hosts(machine) in ([], [killed]):
        assert run.process.poll() is None, "it did not start again there"
        time.sleep(0.05)
    assert [len(machines.hosts(each)) for each in MACHINES] == [1, 1]
    errors = run.end()
    assert run.process.returncode == 0, errors
    (line,) = [line for line in errors.splitlines() if "restart" in line]
    assert line.endswith("of 2 was lost (ActorDiedError): it goes on from its last state (restart 1 of 3)")
    assert_same(tmp_path / "run", one_machine)
    assert_nothing_is_left(machines, run)


def test_a_cut_link_without_restarts_is_one_line(machines: TwoMachines, tmp_path: Path, started: StartRun) -> None:
    run = begun(machines, started, tmp_path, "total_frames=1000000", "distributed.restarts=0")
    with machines.cut():
        cut = time.monotonic()
        run.process.wait(120)
        seconds = time.monotonic() - cut
    errors = run.end()
    assert run.process.returncode == 2, errors
    assert seconds < TIMEOUT + 15, errors
    line = errors.strip().splitlines()[-1]
    assert line.startswith("ctde-mappo: error: collector ")
    assert f"gave no sign of life for {TIMEOUT} s; restarts=0 allows no further one" in line
    assert_nothing_is_left(machines, run)


def test_after_a_cut_link_the_collector_goes_on_elsewhere(
    machines: TwoMachines, one_machine: Path, tmp_path: Path, started: StartRun
) -> None:
    run = begun(machines, started, tmp_path)
    with machines.cut():
        cut = time.monotonic()
        noticed = _line_with(run, "gave no sign of life")
        assert time.monotonic() - cut < TIMEOUT + 15
        assert "it goes on from its last state (restart 1 of 3)" in noticed
        errors = run.end()
    assert run.process.returncode == 0, errors
    assert "restart" not in errors, "the collector was started once, where it could be reached"
    assert_same(tmp_path / "run", one_machine)
    assert_nothing_is_left(machines, run)


def _line_with(run: RayRun, text: str) -> str:
    assert run.process.stderr is not None
    return next(line for line in run.process.stderr if text in line)
