"""Populations on Ray: the numbers of this process, a killed member, Ctrl-C, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from ctde_kit.distributed import LocalProcesses, RayProcesses
from ctde_kit.recipes import MADDPGConfig, OneProcess, start, start_population
from ctde_kit.recipes.commands.loading import read_population
from ctde_kit.recipes.commands.population_runs import resume_population
from ctde_kit.recipes.wiring.population_directory import PopulationDirectory
from tests.distributed.populations import content, small_population
from tests.recipes.command_line import command
from tests.recipes.resuming import same

pytest.importorskip("ray")
pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("no_curves")]
# Long enough to be disturbed: some seconds.
FRAMES = 2_400


def long_population() -> MADDPGConfig:
    return small_population(total_frames=FRAMES, sync={"every": 480})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same population, in this process."""
    path = tmp_path_factory.mktemp("populations") / "undisturbed"
    start_population(long_population(), path, processes=LocalProcesses)
    return path


def assert_same(ours: Path, theirs: Path) -> None:
    for rank in range(2):
        ends = [content(path / "members" / str(rank)) for path in (ours, theirs)]
        for part in ("parts", "random", "on_iteration"):
            assert same(ends[0][part], ends[1][part]), (rank, part)
    assert PopulationDirectory(ours).exchanges() == PopulationDirectory(theirs).exchanges()


def test_one_member_equals_a_local_run_bit_for_bit(tmp_path: Path) -> None:
    config = small_population(members=1)
    start_population(config, tmp_path / "population", processes=partial(RayProcesses, timeout=60))
    start(replace(config, distributed=OneProcess()), tmp_path / "alone")
    ours, theirs = content(tmp_path / "population" / "members" / "0"), content(tmp_path / "alone")
    for part in ("parts", "random", "frames"):
        assert same(ours[part], theirs[part]), part


def prepared(path: Path) -> subprocess.Popen[str]:
    """The command that goes on with a population which was stopped after its first checkpoint."""
    start_population(replace(long_population(), total_frames=60), path, processes=LocalProcesses)
    return resumed(path)


def resumed(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command("maddpg", f"resume={path}", f"total_frames={FRAMES}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_version(path: Path, frames: int, program: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 120
    while PopulationDirectory(path).version(2).frames < frames:
        assert program.poll() is None, program.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)


def process_of(path: Path, rank: int) -> int:
    return int((path / "members" / str(rank) / ".owner").read_text().split()[1])


def descendants(pid: int) -> set[int]:
    """The processes that a program has started, and those that these have."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    found, last = {pid}, set[int]()
    while found != last:
        last, found = found, found | {child for child, parent in parents.items() if parent in found}
    return found


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def assert_nothing_is_left(processes: set[int]) -> None:
    until = time.monotonic() + 20
    while not all(map(gone, processes)):
        assert time.monotonic() < until, [pid for pid in processes if not gone(pid)]
        time.sleep(0.1)


def test_a_killed_member_sends_all_back_and_the_numbers_are_the_same(undisturbed: Path, tmp_path: Path) -> None:
    path = tmp_path / "population"
    program = prepared(path)
    wait_for_version(path, 600, program)
    processes = descendants(program.pid)
    os.kill(process_of(path, 1), signal.SIGKILL)
    stdout, stderr = program.communicate(timeout=300)
    assert program.returncode == 0, stderr
    assert "best of 2 members" in stdout
    told = [line for line in stderr.splitlines() if "was lost" in line]
    assert len(told) == 1
    assert "member 1 of 2 was lost" in told[0]
    assert "restart 1 of 3" in told[0]
    assert_same(path, undisturbed)
    assert_nothing_is_left(processes)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing_behind_and_the_population_goes_on(
    undisturbed: Path, tmp_path: Path, number: signal.Signals
) -> None:
    path = tmp_path / "population"
    program = prepared(path)
    wait_for_version(path, 600, program)
    processes = descendants(program.pid)
    assert process_of(path, 0) in processes
    # A terminal sends it to all processes of its group.
    os.killpg(program.pid, number) if number == signal.SIGINT else os.kill(program.pid, number)
    _, stderr = program.communicate(timeout=60)
    assert program.returncode == 128 + number, stderr
    assert f"go on with ctde-maddpg resume={path}" in stderr
    assert_nothing_is_left(processes)
    assert PopulationDirectory(path).version(2).frames < FRAMES
    resume_population(read_population(PopulationDirectory(path)), path, processes=LocalProcesses)
    assert_same(path, undisturbed)
