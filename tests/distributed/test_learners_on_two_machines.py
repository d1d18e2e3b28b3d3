"""Learners on two machines: the numbers of one machine, a cut link, a killed one, and what is left behind."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.distributed.ray_runs import StartRun
from tests.distributed.test_ray_rollouts import RECIPES
from tests.distributed.two_machines import (
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

LEARNERS = ["mappo", *RECIPES["mappo"], "distributed=ray", "distributed.learners=2"]
# Rank 0 is the run's own process, on the first machine.
LAYOUT = Layout(LEARNERS, "checkpoints/frames_500.pt", hosts=(0, 1))


@pytest.fixture(scope="module")
def one_machine(machines: TwoMachines, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with both learners on this machine."""
    return LAYOUT.on_one_machine(tmp_path_factory.mktemp("one_machine"))


def test_two_machines_give_the_numbers_of_one(
    machines: TwoMachines, one_machine: Path, tmp_path: Path, started: StartRun
) -> None:
    run = LAYOUT.start(machines, started, tmp_path)
    errors = errors_of_success(run)
    assert "restart" not in errors
    assert_same("mappo", tmp_path / "run", one_machine)
    assert_nothing_is_left(machines, run)


def test_a_killed_learner_sends_all_back_to_the_last_checkpoint(
    machines: TwoMachines, one_machine: Path, tmp_path: Path, started: StartRun
) -> None:
    run = LAYOUT.start(machines, started, tmp_path)
    (killed,) = machines.hosts("second")
    os.kill(killed, signal.SIGKILL)
    errors = errors_of_success(run)
    (line,) = [line for line in errors.splitlines() if "restart" in line]
    assert line.startswith("learner 2 of 2 was lost"), line
    assert line.endswith(": all learners go on from the last checkpoint (restart 1 of 3)")
    assert_same("mappo", tmp_path / "run", one_machine)
    assert_nothing_is_left(machines, run)


def test_a_cut_link_without_restarts_is_one_line(machines: TwoMachines, tmp_path: Path, started: StartRun) -> None:
    run = LAYOUT.start(machines, started, tmp_path, "total_frames=1000000", "distributed.restarts=0")
    line = error_behind_cut(machines, run)
    assert line.startswith("ctde-mappo: error: learner 2 of 2 gave no sign of life for "), line
    assert "go on with ctde-mappo resume=" in line
    assert_nothing_is_left(machines, run)


def test_after_a_cut_link_all_go_on_where_they_reach_each_other(
    machines: TwoMachines, one_machine: Path, tmp_path: Path, started: StartRun
) -> None:
    run = LAYOUT.start(machines, started, tmp_path)
    with machines.cut():
        run.wait_for_error("learner 2 of 2 gave no sign of life", TIMEOUT + 15)
        errors = errors_of_success(run)
    (line,) = [line for line in errors.splitlines() if "restart" in line]
    assert line.endswith(": all learners go on from the last checkpoint (restart 1 of 3)")
    assert_same("mappo", tmp_path / "run", one_machine)
    assert_nothing_is_left(machines, run)
