"""The runner: what it writes, how it resumes, and that evaluation does not change training."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ctde_kit.errors import UserError
from ctde_kit.recipes import EvaluationConfig, QMIXConfig, load
from ctde_kit.recipes.commands.loading import read_config
from ctde_kit.recipes.commands.running import resume, start
from ctde_kit.training import RunDirectory, read_checkpoint, runner
from ctde_kit.training.reporting import plot_run
from tests.recipes.small import small_config

pytestmark = pytest.mark.usefixtures("no_curves")


def run(path: Path, **kwargs) -> dict:
    return start(small_config(**kwargs), path)


def rows(path: Path) -> list[dict[str, str]]:
    with open(path / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_run_directory_holds_what_is_promised(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "plot_run", plot_run)
    run(tmp_path / "r", video=True)
    path = tmp_path / "r"
    summary = json.loads((path / "summary.json").read_text())
    assert summary["algorithm"] == "mappo"
    assert summary["task"] == "vmas/navigation"
    assert summary["frames"] == 240
    for name in ("seconds", "frames_per_second", "eval/return_mean", "eval/return_sum", "eval/return_std"):
        assert isinstance(summary[name], float)
    assert summary["eval/return_sum"] == pytest.approx(2 * summary["eval/return_mean"], rel=1e-5)
    assert summary["eval/agents/return_mean"] == summary["eval/return_mean"]
    assert summary["eval/episodes"] == 4
    assert [int(row["frames"]) for row in rows(path)] == [60, 120, 180, 240]
    for name in ("loss_objective", "loss_critic", "loss_entropy", "approx_kl", "clip_fraction", "grad_norm"):
        assert f"train/{name}" in rows(path)[0]
    assert [bool(row["eval/return_mean"]) for row in rows(path)] == [False, True, False, True]
    assert {p.name for p in path.iterdir()} == {
        ".lock", "config.yaml", "actors.yaml", "facts.json", "metrics.csv", "evaluations.jsonl", "summary.json",
        "checkpoints", "plots", "videos",
    }  # fmt: skip
    assert sorted(p.name for p in (path / "checkpoints").iterdir()) == ["best.pt", "frames_180.pt", "frames_240.pt"]
    assert (path / "plots" / "return.png").stat().st_size > 5_000
    assert (path / "videos" / "greedy_episode.gif").stat().st_size > 1_000
    printed = capsys.readouterr().out
    assert str(path) in printed
    assert "return_mean" in printed


def test_training_does_not_depend_on_evaluation(tmp_path: Path) -> None:
    run(tmp_path / "often", evaluation=EvaluationConfig(every_frames=60, episodes=5))
    run(tmp_path / "once", evaluation=EvaluationConfig(every_frames=10_000, episodes=2))
    often, once = rows(tmp_path / "often"), rows(tmp_path / "once")
    assert len(often) == 4
    for name in ("frames", "train/loss_critic", "train/approx_kl"):
        assert [row[name] for row in often] == [row[name] for row in once]


def test_resume_drops_later_rows_and_goes_on_alike(tmp_path: Path) -> None:
    run(tmp_path / "whole", anneal_lr=False)
    run(tmp_path / "short", anneal_lr=False, total_frames=120)
    path = tmp_path / "short"
    with open(path / "metrics.csv", "a") as file:
        file.write("180,9.0\n240,9.0\n")
    cfg = read_config(path)
    cfg.total_frames = 240
    resume(cfg, path)
    whole, resumed = rows(tmp_path / "whole"), rows(path)
    assert [int(float(row["frames"])) for row in resumed] == [60, 120, 180, 240]
    for name in ("train/loss_objective", "train/loss_critic", "train/grad_norm"):
        assert [float(row[name]) for row in whole] == [float(row[name]) for row in resumed]
    seconds = [float(row["seconds"]) for row in resumed]
    assert seconds == sorted(seconds)


def test_finished_run_loads_back_and_acts(tmp_path: Path) -> None:
    run(tmp_path / "r")
    loaded = load(tmp_path / "r")
    assert loaded.frames == 240
    data = loaded.policy(loaded.env.reset())
    torch.testing.assert_close(data["agents", "action"], data["agents", "loc"].tanh())  # greedy
    saved = read_checkpoint(tmp_path / "r" / "checkpoints" / "frames_240.pt", algorithm="mappo")["parts"]["policy"]
    for name, value in loaded.policy.state_dict().items():
        assert torch.equal(value, saved[name]), name


def test_unwritable_run_directory_is_named() -> None:
    with pytest.raises(UserError, match=r"cannot be written .*: choose another path"):
        RunDirectory(Path("/proc/nowhere"))


def test_a_directory_that_holds_a_run_is_not_overwritten(tmp_path: Path) -> None:
    run(tmp_path / "r", total_frames=60)
    before = sorted(path.name for path in (tmp_path / "r" / "checkpoints").iterdir())
    with pytest.raises(UserError, match="holds a run already"):
        run(tmp_path / "r", total_frames=120, seed=5)
    assert sorted(path.name for path in (tmp_path / "r" / "checkpoints").iterdir()) == before
    with pytest.raises(UserError, match=r"config='mappo': expected a recipe's configuration, such as MAPPOConfig\("):
        start("mappo", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_run_that_goes_on_longer_takes_up_its_learning_rate(tmp_path: Path) -> None:
    run(tmp_path / "r", total_frames=120, lr=1e-2)
    cfg = read_config(tmp_path / "r")
    cfg.total_frames = 240
    resume(cfg, tmp_path / "r")
    assert abs(float(rows(tmp_path / "r")[2]["train/approx_kl"])) > 1e-6


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"gamma": 0.1}, r"gamma=0\.1: the run in \S+ has 0\.99;"), ({"frames_per_batch": 30}, "frames_per_batch=30: ")],
)
def test_a_run_goes_on_as_it_began(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    run(tmp_path / "r", total_frames=60)
    cfg = read_config(tmp_path / "r")
    with pytest.raises(UserError, match=message):
        resume(replace(cfg, total_frames=120, **changes), tmp_path / "r")
    with pytest.raises(UserError, match=r"algorithm='qmix': the run in \S+ is one of 'mappo'"):
        resume(QMIXConfig(), tmp_path / "r")
    assert read_config(tmp_path / "r") == cfg


def test_a_run_that_is_not_there_does_not_go_on(tmp_path: Path) -> None:
    run(tmp_path / "r", total_frames=60)
    with pytest.raises(UserError, match=r"path='\S+/rr': there is no such directory; .*did you mean \S+/r\?"):
        resume(read_config(tmp_path / "r"), tmp_path / "rr")
    assert not (tmp_path / "rr").exists()


@pytest.mark.slow
def test_evaluations_fall_where_they_would_have_without_the_stop(tmp_path: Path) -> None:
    every = EvaluationConfig(every_frames=180, episodes=2)
    run(tmp_path / "whole", total_frames=480, evaluation=every)
    run(tmp_path / "stopped", total_frames=240, evaluation=every)
    kept = rows(tmp_path / "stopped")
    (tmp_path / "stopped" / "checkpoints" / "frames_240.pt").unlink()
    cfg = read_config(tmp_path / "stopped")
    cfg.total_frames = 480
    resume(cfg, tmp_path / "stopped")
    assert len(kept) == 4
    evaluated = [
        [int(float(row["frames"])) for row in rows(tmp_path / name) if row["eval/return_mean"]]
        for name in ("whole", "stopped")
    ]
    assert evaluated[0] == evaluated[1] == [180, 360, 480]


def test_loading_a_run_leaves_the_random_state_alone(tmp_path: Path) -> None:
    run(tmp_path / "r", total_frames=60)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    load(tmp_path / "r", device="cpu")
    assert torch.equal(torch.rand(2), expected)
