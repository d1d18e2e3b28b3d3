"""Collectors on two machines: the numbers of one machine, a cut link, a killed one, and what is left behind."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.distributed.ray_runs import RayRun, StartRun
from tests.distributed.test_ray_rollouts import RECIPES
from tests.distributed.two_machines import MACHINES, TIMEOUT, TwoMachines, assert_nothing_is_left, assert_same
from tests.recipes.command_line import call

pytest.importorskip("ray")
pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

COLLECTORS = ["mappo", *RECIPES["mappo"], "distributed=ray", "distributed.collectors=2"]


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
    run.wait_for_file(path / "run" / "checkpoints" / "frames_500.pt")
    assert [len(machines.hosts(machine)) for machine in MACHINES] == [1, 1]
    return run


def test_two_machines_give_the_numbers_of_one(
    machines: TwoMachines, one_machine: Path, tmp_path: Path, started: StartRun
) -> None:
    run = begun(machines, started, tmp_path)
    errors = run.end()
    assert run.process.returncode == 0, errors
    assert "restart" not in errors
    assert_same("mappo", tmp_path / "run", one_machine)
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
    assert_same("mappo", tmp_path / "run", one_machine)
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
        run.wait_for_error("gave no sign of life", TIMEOUT + 15)
        errors = run.end()
    assert run.process.returncode == 0, errors
    (line,) = [line for line in errors.splitlines() if "restart" in line]  # once, where it could be reached
    assert line.endswith("it goes on from its last state (restart 1 of 3)")
    assert_same("mappo", tmp_path / "run", one_machine)
    assert_nothing_is_left(machines, run)
