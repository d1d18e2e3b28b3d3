"""Runs that collect in processes of Ray: the numbers of a local run, resuming, lost processes, and what is left."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.distributed.ray_runs import StartRun, rows
from tests.recipes.command_line import assert_one_line, call

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


@pytest.mark.parametrize("recipe", [*RECIPES])
def test_one_collector_gives_the_rows_of_a_local_run(recipe: str, tmp_path: Path) -> None:
    for run, options in {"local": [], "ray": ["distributed=ray"]}.items():
        result = call(tmp_path, recipe, *RECIPES[recipe], *options, f"hydra.run.dir={run}")
        assert result.returncode == 0, result.stderr
    assert rows(tmp_path / "ray") == rows(tmp_path / "local")


def test_several_collectors_ahead_of_the_learner_resume_bit_for_bit(tmp_path: Path, started: StartRun) -> None:
    options = ["maddpg", *RECIPES["maddpg"], "distributed=ray", "distributed.collectors=2", "distributed.delay=1"]
    whole = call(tmp_path, *options, "hydra.run.dir=whole")
    assert whole.returncode == 0, whole.stderr
    killed = started(*options, "hydra.run.dir=killed")
    killed.wait_for_file(tmp_path / "killed" / "checkpoints" / "frames_1000.pt")
    killed.process.send_signal(signal.SIGKILL)
    killed.process.wait()
    assert not (tmp_path / "killed" / "summary.json").exists(), "the run ended before it was killed"
    resumed = call(tmp_path, "maddpg", "resume=killed")
    assert resumed.returncode == 0, resumed.stderr
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")


def test_a_killed_collector_changes_nothing_and_nothing_is_left(tmp_path: Path, started: StartRun) -> None:
    options = ["mappo", *RECIPES["mappo"], "distributed=ray", "distributed.collectors=2"]
    whole = call(tmp_path, *options, "hydra.run.dir=whole")
    assert whole.returncode == 0, whole.stderr
    run = started(*options, "hydra.run.dir=run")
    run.wait_for_file(tmp_path / "run" / "checkpoints" / "frames_500.pt")
    hosts = run.hosts()
    assert len(hosts) == 2
    os.kill(hosts[1], signal.SIGKILL)
    errors = run.end()
    assert run.process.returncode == 0, errors
    assert "it goes on from its last state (restart 1 of 3)" in errors
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")
    assert not run.hosts()


def test_a_signal_ends_it_with_a_checkpoint_and_leaves_nothing(tmp_path: Path, started: StartRun) -> None:
    options = ["mappo", *RECIPES["mappo"], "total_frames=1000000", "distributed=ray"]
    run = started(*options, "hydra.run.dir=run")
    run.wait_for_file(tmp_path / "run" / "checkpoints" / "frames_500.pt")
    run.process.send_signal(signal.SIGINT)
    errors = run.end()
    assert run.process.returncode == 130, errors
    assert "go on with ctde-mappo resume=" in errors
    assert not run.hosts()


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
