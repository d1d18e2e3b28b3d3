"""Learners in processes of Ray that share every gradient step: the same weights in all, resuming, and a lost one."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from ctde_kit.training import latest_checkpoint, read_checkpoint
from tests.distributed.ray_runs import StartRun, rows
from tests.distributed.test_ray_rollouts import RECIPES
from tests.recipes.command_line import call

pytest.importorskip("ray")
pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

LEARNERS = ["distributed=ray", "distributed.learners=2"]


def test_all_learners_have_the_same_weights_and_resume_bit_for_bit(tmp_path: Path, started: StartRun) -> None:
    options = ["mappo", *RECIPES["mappo"], *LEARNERS, "normalize_observations=true"]
    whole = call(tmp_path, *options, "hydra.run.dir=whole")
    assert whole.returncode == 0, whole.stderr
    killed = started(*options, "hydra.run.dir=killed")
    killed.wait_for_file(tmp_path / "killed" / "checkpoints" / "frames_1000.pt")
    killed.kill()
    assert not (tmp_path / "killed" / "summary.json").exists(), "the run ended before it was killed"
    resumed = call(tmp_path, "mappo", "resume=killed")
    assert resumed.returncode == 0, resumed.stderr
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")

    content = read_checkpoint(latest_checkpoint(tmp_path / "whole" / "checkpoints"), algorithm="mappo")["parts"]
    (other,) = content["collector"]["learners"]
    for part in ("update", "policy", "prepare", "observation_norm"):
        ours, theirs = (torch.utils._pytree.tree_leaves(state[part]) for state in (content, other["parts"]))
        tensors = [pair for pair in zip(ours, theirs, strict=True) if isinstance(pair[0], torch.Tensor)]
        assert tensors
        assert all(torch.equal(*pair) for pair in tensors), part
    seen = [state["collector"]["next_root"]["agents/observation"] for state in (content["collector"], other["parts"])]
    assert not torch.equal(*seen)


def test_after_a_loss_all_go_on_from_the_last_checkpoint(tmp_path: Path, started: StartRun) -> None:
    options = ["maddpg", *RECIPES["maddpg"], *LEARNERS]
    whole = call(tmp_path, *options, "hydra.run.dir=whole")
    assert whole.returncode == 0, whole.stderr
    run = started(*options, "hydra.run.dir=run")
    run.wait_for_file(tmp_path / "run" / "checkpoints" / "frames_500.pt")
    (host,) = run.hosts()
    os.kill(host, signal.SIGKILL)
    errors = run.end()
    assert run.process.returncode == 0, errors
    assert "lost" in errors
    assert "all learners go on from the last checkpoint (restart 1 of 3)" in errors
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")
    assert not run.processes()


def test_a_loss_too_many_is_one_line(tmp_path: Path, started: StartRun) -> None:
    options = ["maddpg", *RECIPES["maddpg"], "total_frames=1000000", *LEARNERS, "distributed.restarts=0"]
    run = started(*options, "hydra.run.dir=run")
    run.wait_for_file(tmp_path / "run" / "checkpoints" / "frames_500.pt")
    (host,) = run.hosts()
    os.kill(host, signal.SIGKILL)
    errors = run.end(120)
    assert run.process.returncode == 2, errors
    (line,) = errors.strip().splitlines()
    assert line.startswith("ctde-maddpg: error: ")
    assert "lost" in line
    assert "go on with ctde-maddpg resume=" in line
    assert not run.processes()
