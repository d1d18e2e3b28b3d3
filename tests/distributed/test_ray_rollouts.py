"""Runs that collect in processes of Ray: the numbers of a local run, resuming, lost processes, and what is left."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctde_kit.training import read_metrics
from tests.recipes.command_line import ENVIRONMENT, assert_one_line, call, command

pytest.importorskip("ray")
pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

SMALL = [
    "task=vmas/navigation",
    "task.n_envs=5",
    "task.max_steps=20",
    "total_frames=2000",
    "evaluation.episodes=5",
    "evaluation.every_frames=1000",
    "checkpoint.every_frames=500",
    "actor.num_cells=[16]",
    "critic.network.num_cells=[16]",
    "compile=off",
    "seed=3",
]
RECIPES = {
    "mappo": [*SMALL, "frames_per_batch=500", "minibatch_frames=100", "epochs=2"],
    "maddpg": [*SMALL, "frames_per_batch=500", "replay.batch_size=32", "updates_per_frame=0.02"],
}
FORAGING = [
    "task=lbf/foraging_8x8_2p_2f_coop",
    "replay=sequences",
    "task.n_envs=4",
    "task.n_workers=2",
    "network@actor=gru",
    "actor.hidden_size=8",
]


def rows(run: Path) -> list[dict[str, float]]:
    """Of ``metrics.csv``, without the seconds."""
    found = list(read_metrics(run / "metrics.csv"))
    assert found
    return [{name: value for name, value in row.items() if name != "seconds"} for row in found]


def processes_of(session: int) -> list[int]:
    """Processes of a session that still run."""
    listed = subprocess.run(["ps", "-o", "pid=,stat=", "-s", str(session)], capture_output=True, text=True, check=False)
    found = [line.split() for line in listed.stdout.splitlines()]
    return [int(pid) for pid, stat in found if not stat.startswith("Z")]


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[subprocess.Popen]]:
    """Runs that a test starts; each is the leader of a session, and none outlives the test."""
    running: list[subprocess.Popen] = []
    yield running
    for process in running:
        for pid in processes_of(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.wait()


def begin(cwd: Path, started: list[subprocess.Popen], *arguments: str) -> subprocess.Popen:
    process = subprocess.Popen(
        command(*arguments),
        cwd=cwd,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    started.append(process)
    return process


def wait_for(path: Path, pattern: str, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not list(path.glob(pattern)):
        assert time.monotonic() < deadline, f"no {pattern} in {path}"
        time.sleep(0.05)


def collectors(session: int) -> list[int]:
    """The processes of a run's collectors, by their order of starting; Ray shows the actor's class in their titles."""
    listed = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=False)
    found = [line.split(None, 1) for line in listed.stdout.splitlines() if "ray::_Host" in line]
    return sorted(int(pid) for pid, _ in found)


@pytest.mark.parametrize("recipe", [*RECIPES])
def test_one_collector_gives_the_rows_of_a_local_run(recipe: str, tmp_path: Path) -> None:
    for run, options in {"local": [], "ray": ["distributed=ray"]}.items():
        result = call(tmp_path, recipe, *RECIPES[recipe], *options, f"hydra.run.dir={run}")
        assert result.returncode == 0, result.stderr
    assert rows(tmp_path / "ray") == rows(tmp_path / "local")


def test_several_collectors_ahead_of_the_learner_resume_bit_for_bit(
    tmp_path: Path, started: list[subprocess.Popen]
) -> None:
    options = ["maddpg", *RECIPES["maddpg"], "distributed=ray", "distributed.collectors=2", "distributed.delay=1"]
    whole = call(tmp_path, *options, "hydra.run.dir=whole")
    assert whole.returncode == 0, whole.stderr
    killed = begin(tmp_path, started, *options, "hydra.run.dir=killed")
    wait_for(tmp_path / "killed" / "checkpoints", "frames_1000.pt")
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed" / "summary.json").exists(), "the run ended before it was killed"
    resumed = call(tmp_path, "maddpg", "resume=killed")
    assert resumed.returncode == 0, resumed.stderr
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")


def test_a_killed_collector_changes_nothing_and_nothing_is_left(
    tmp_path: Path, started: list[subprocess.Popen]
) -> None:
    options = ["mappo", *RECIPES["mappo"], "distributed=ray", "distributed.collectors=2"]
    whole = call(tmp_path, *options, "hydra.run.dir=whole")
    assert whole.returncode == 0, whole.stderr
    run = begin(tmp_path, started, *options, "hydra.run.dir=run")
    wait_for(tmp_path / "run" / "checkpoints", "frames_500.pt")
    hosts = collectors(run.pid)
    assert len(hosts) == 2
    os.kill(hosts[1], signal.SIGKILL)
    _, errors = run.communicate(timeout=300)
    assert run.returncode == 0, errors
    assert "it goes on from its last state (restart 1 of 3)" in errors
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")
    assert not collectors(run.pid)


def test_a_signal_ends_it_with_a_checkpoint_and_leaves_nothing(tmp_path: Path, started: list[subprocess.Popen]) -> None:
    options = ["mappo", *RECIPES["mappo"], "total_frames=1000000", "distributed=ray"]
    run = begin(tmp_path, started, *options, "hydra.run.dir=run")
    wait_for(tmp_path / "run" / "checkpoints", "frames_500.pt")
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 130, errors
    assert "go on with ctde-mappo resume=" in errors
    assert not collectors(run.pid)


def test_environments_in_worker_processes_are_collected_by_several(tmp_path: Path) -> None:
    options = ["qmix", *FORAGING, "total_frames=800", "frames_per_batch=400", "evaluation.episodes=4", "seed=1"]
    results = []
    for run in ("first", "second"):
        done = call(
            tmp_path, *options, "distributed=ray", "distributed.collectors=2", "compile=off", f"hydra.run.dir={run}"
        )
        assert done.returncode == 0, done.stderr
        results.append(rows(tmp_path / run))
    assert results[0] == results[1]


def test_a_mistake_in_own_code_is_shown_as_in_a_local_run(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import os\nfrom vmas.scenarios.navigation import Scenario as Navigation\n\n\nclass Scenario(Navigation):\n"
        "    def reward(self, agent):\n        if 'ray' in os.environ.get('_', '') or os.environ.get('RAY_JOB_ID'):\n"
        "            raise ValueError('the reward is not defined')\n        return super().reward(agent)\n"
    )
    options = [*RECIPES["mappo"][1:], "task=vmas/mine.py:Scenario", "distributed=ray"]
    result = call(tmp_path, "mappo", *options, "hydra.run.dir=run")
    assert result.returncode == 1
    assert "mine.py" in result.stderr
    assert result.stderr.splitlines()[-1] == "ValueError: the reward is not defined"


def test_a_cluster_that_does_not_answer_is_one_line(tmp_path: Path) -> None:
    options = [*RECIPES["mappo"], "distributed=ray", "distributed.address=127.0.0.1:1"]
    result = call(tmp_path, "mappo", *options, "hydra.run.dir=run")
    assert_one_line(result, "distributed.address=127.0.0.1:1: no Ray cluster answers", program="ctde-mappo")
