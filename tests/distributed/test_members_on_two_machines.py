"""Members on two machines: the numbers of one machine, and a cut link, behind which a member still has its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctde_kit.recipes.wiring.population_directory import PopulationDirectory
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
pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]

SYNC = ["what=best_critic", "every=500", "episodes=4"]
MEMBERS = [
    *("maddpg", *RECIPES["maddpg"], "evaluation.every_frames=2000", "threads=1", "distributed=ray"),
    *("distributed.members=2", *(f"distributed.sync.{option}" for option in SYNC)),
]
LAYOUT = Layout(MEMBERS, "version.json", hosts=(1, 1))


@pytest.fixture(scope="module")
def one_machine(machines: TwoMachines, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same population on this machine."""
    return LAYOUT.on_one_machine(tmp_path_factory.mktemp("one_machine"))


def assert_same_populations(ours: Path, theirs: Path) -> None:
    for rank in range(2):
        assert_same("maddpg", *(run / "members" / str(rank) for run in (ours, theirs)))
    assert PopulationDirectory(ours).exchanges() == PopulationDirectory(theirs).exchanges()


def test_two_machines_give_the_numbers_of_one(
    machines: TwoMachines, one_machine: Path, tmp_path: Path, started: StartRun
) -> None:
    run = LAYOUT.start(machines, started, tmp_path)
    errors = errors_of_success(run)
    assert "restart" not in errors
    assert_same_populations(tmp_path / "run", one_machine)
    assert_nothing_is_left(machines, run)


def test_a_cut_link_without_restarts_is_one_line(machines: TwoMachines, tmp_path: Path, started: StartRun) -> None:
    run = LAYOUT.start(machines, started, tmp_path, "total_frames=1000000", "distributed.restarts=0")
    line = error_behind_cut(machines, run)
    assert line.startswith("ctde-maddpg: error: member 0 of 2 gave no sign of life for "), line
    assert_nothing_is_left(machines, run)


def test_after_a_cut_link_all_go_on_once_the_files_are_free(
    machines: TwoMachines, one_machine: Path, tmp_path: Path, started: StartRun
) -> None:
    run = LAYOUT.start(machines, started, tmp_path)
    with machines.cut():
        run.wait_for_error("member 0 of 2 gave no sign of life", TIMEOUT + 15)
        errors = errors_of_success(run)
    restart, waiting = (line for line in errors.splitlines() if "restart" in line or "waiting" in line)
    assert restart.endswith(" frames (restart 1 of 3)"), errors
    assert waiting.endswith("; waiting for its end, at most 300 s"), errors
    assert_same_populations(tmp_path / "run", one_machine)
    assert_nothing_is_left(machines, run)
