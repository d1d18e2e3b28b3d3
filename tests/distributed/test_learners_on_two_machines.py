"""Learners on two machines: the numbers of one machine, a cut link, a killed one, and what is left behind."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.distributed.ray_runs import RayRun, StartRun
from tests.distributed.test_ray_rollouts import RECIPES
from tests.distributed.two_machines import TIMEOUT, TwoMachines, assert_nothing_is_left, assert_same
from tests.recipes.command_line import call

pytest.importorskip("ray")
pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

LEARNERS = ["mappo", *RECIPES["mappo"], "distributed=ray", "distributed.learners=2"]


@pytest.fixture(scope="module")
def one_machine(machines: TwoMachines, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with both learners on this machine."""
    path = tmp_path_factory.mktemp("one_machine")
    result = call(path, *LEARNERS, "distributed.address=local", "hydra.run.dir=run")
    assert result.returncode == 0, result.stderr
    return path / "run"


def begun(machines: TwoMachines, started: StartRun, path: Path, *options: str) -> RayRun:
    """A run with a learner on each machine, which has written its first checkpoint."""
    places = [f"distributed.address={machines.address}", f"distributed.timeout={TIMEOUT}"]
    run = started(*LEARNERS, *places, *options, "hydra.run.dir=run", inside=machines.inside("first"))
    run.wait_for_file(path / "run" / "checkpoints" / "frames_500.pt")
    # Rank 0 is the run's own process, on the first machine.
    assert (len(machines.hosts("first")), len(machines.hosts("second"))) == (0, 1)
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


def test_a_killed_learner_sends_all_back_to_the_last_checkpoint(
    machines: TwoMachines, one_machine: Path, tmp_path: Path, started: StartRun
) -> None:
    run = begun(machines, started, tmp_path)
    (killed,) = machines.hosts("second")
    os.kill(killed, signal.SIGKILL)
    errors = run.end()
    assert run.process.returncode == 0, errors
    (line,) = [line for line in errors.splitlines() if "restart" in line]
    assert line.startswith("learner 2 of 2 was lost"), line
    assert line.endswith(": all learners go on from the last checkpoint (restart 1 of 3)")
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
    # Above it torch may warn of machines without names.
    line = errors.strip().splitlines()[-1]
    assert line.startswith("ctde-mappo: error: learner 2 of 2 gave no sign of life for "), line
    assert "go on with ctde-mappo resume=" in line
    assert_nothing_is_left(machines, run)


def test_after_a_cut_link_all_go_on_where_they_reach_each_other(
    machines: TwoMachines, one_machine: Path, tmp_path: Path, started: StartRun
) -> None:
    run = begun(machines, started, tmp_path)
    with machines.cut():
        run.wait_for_error("learner 2 of 2 gave no sign of life", TIMEOUT + 15)
        errors = run.end()
    assert run.process.returncode == 0, errors
    (line,) = [line for line in errors.splitlines() if "restart" in line]
    assert line.endswith(": all learners go on from the last checkpoint (restart 1 of 3)")
    assert_same("mappo", tmp_path / "run", one_machine)
    assert_nothing_is_left(machines, run)
