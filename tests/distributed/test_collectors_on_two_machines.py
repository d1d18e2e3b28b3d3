"""Collectors on two machines: the numbers of one machine, a cut link, a killed one, and what is left behind."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.distributed.ray_runs import StartRun
from tests.distributed.test_ray_rollouts import RECIPES
from tests.distributed.two_machines import (
    MACHINES,
    TIMEOUT,
    Layout,
    TwoMachines,
    assert_nothing_is_left,
    assert_same,
    error_behind_cut,
    errors_of_success,
)

pytest.importorskip("ray")
pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

COLLECTORS = ["mappo", *RECIPES["mappo"], "distributed=ray", "distributed.collectors=2"]
LAYOUT = Layout(COLLECTORS, "checkpoints/frames_500.pt", hosts=(1, 1))


@pytest.fixture(scope="module")
def one_machine(machines: TwoMachines, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with both collectors on this machine."""
    return LAYOUT.on_one_machine(tmp_path_factory.mktemp("one_machine"))


def test_two_machines_give_the_numbers_of_one(
    machines: TwoMachines, one_machine: Path, tmp_path: Path, started: StartRun
) -> None:
    run = LAYOUT.start(machines, started, tmp_path)
    errors = errors_of_success(run)
    assert "restart" not in errors
    assert_same("mappo", tmp_path / "run", one_machine)
    assert_nothing_is_left(machines, run)


@pytest.mark.parametrize("machine", MACHINES)
def test_a_killed_collector_starts_again_on_its_machine_and_changes_nothing(
    machine: str, machines: TwoMachines, one_machine: Path, tmp_path: Path, started: StartRun
) -> None:
    run = LAYOUT.start(machines, started, tmp_path)
    (killed,) = machines.hosts(machine)
    os.kill(killed, signal.SIGKILL)
    while machines.hosts(machine) in ([], [killed]):
        assert run.process.poll() is None, "it did not start again there"
        time.sleep(0.05)
    assert [len(machines.hosts(each)) for each in MACHINES] == [1, 1]
    errors = errors_of_success(run)
    (line,) = [line for line in errors.splitlines() if "restart" in line]
    assert line.endswith("of 2 was lost (ActorDiedError): it goes on from its last state (restart 1 of 3)")
    assert_same("mappo", tmp_path / "run", one_machine)
    assert_nothing_is_left(machines, run)


def test_a_cut_link_without_restarts_is_one_line(machines: TwoMachines, tmp_path: Path, started: StartRun) -> None:
    run = LAYOUT.start(machines, started, tmp_path, "total_frames=1000000", "distributed.restarts=0")
    line = error_behind_cut(machines, run)
    assert line.startswith("ctde-mappo: error: collector ")
    assert f"gave no sign of life for {TIMEOUT} s; restarts=0 allows no further one" in line
    assert_nothing_is_left(machines, run)


def test_after_a_cut_link_the_collector_goes_on_elsewhere(
    machines: TwoMachines, one_machine: Path, tmp_path: Path, started: StartRun
) -> None:
    run = LAYOUT.start(machines, started, tmp_path)
    with machines.cut():
        run.wait_for_error("gave no sign of life", TIMEOUT + 15)
        errors = errors_of_success(run)
    (line,) = [line for line in errors.splitlines() if "restart" in line]  # once, where it could be reached
    assert line.endswith("it goes on from its last state (restart 1 of 3)")
    assert_same("mappo", tmp_path / "run", one_machine)
    assert_nothing_is_left(machines, run)
