"""Learners in processes of Ray that share agents: either way of collecting, one process, and a lost learner."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.distributed.ray_runs import StartRun, rows
from tests.distributed.test_ray_rollouts import RECIPES
from tests.recipes.command_line import call

pytest.importorskip("ray")
pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

OPTIONS = ["maddpg", *RECIPES["maddpg"], "threads=1"]
AGENTS = ["distributed=ray", "distributed.learners=2", "distributed.by=agent"]


@pytest.fixture(scope="module")
def each(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose learners collect the same batches each."""
    path = tmp_path_factory.mktemp("each")
    result = call(path, *OPTIONS, *AGENTS, "hydra.run.dir=run")
    assert result.returncode == 0, result.stderr
    return path / "run"


def test_it_has_the_rows_of_one_process_but_for_rounding(each: Path, tmp_path: Path) -> None:
    result = call(tmp_path, *OPTIONS, "hydra.run.dir=run")
    assert result.returncode == 0, result.stderr
    for ours, theirs in zip(rows(each), rows(tmp_path / "run"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-5)


def test_batches_that_the_first_sends_change_nothing_and_a_loss_neither(
    each: Path, tmp_path: Path, started: StartRun
) -> None:
    run = started(*OPTIONS, *AGENTS, "distributed.collect=first", "hydra.run.dir=run")
    run.wait_for_file(tmp_path / "run" / "checkpoints" / "frames_500.pt")
    (host,) = run.hosts()
    os.kill(host, signal.SIGKILL)
    errors = run.end()
    assert run.process.returncode == 0, errors
    assert "all learners go on from the last checkpoint (restart 1 of 3)" in errors
    assert rows(tmp_path / "run") == rows(each)
    assert not run.processes()
