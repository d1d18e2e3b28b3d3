"""``load`` reads a run, and writes nothing, whoever writes the run or has moved what it began with."""

from __future__ import annotations

import gc
import os
import shutil
from pathlib import Path

import torch

from ctde_kit.recipes import ReplayConfig, RunOpponent, load
from ctde_kit.recipes.commands.loading import read_config
from ctde_kit.recipes.commands.running import resume, start
from ctde_kit.training import iterate
from ctde_kit.training.run_lock import sole_writer
from tests.recipes.small_q import small_q_config
from tests.recipes.test_opponents import config, run


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


def test_a_live_run_with_a_replay_on_disk_is_read_and_nothing_is_written(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    replay = {"stored_on": "disk", "directory": str(tmp_path / "replays")}
    cfg = small_q_config(replay=replay)
    start(cfg, tmp_path / "run")
    live = cfg.build()  # the replay of a run that goes on
    for batch in live.collector:
        live.buffer.extend(live.prepare(batch))
    stored = live.buffer.state_dict()["items"]
    gc.collect()  # the replay of the run that has ended
    with sole_writer(tmp_path / "run"):
        before = snapshot(tmp_path)
        loaded = load(tmp_path / "run")
        assert len(loaded.parts.buffer) == 130
        assert snapshot(tmp_path) == before
    again = live.buffer.state_dict()["items"]
    assert all(
        torch.equal(value, again["entries"][name])
        for name, value in stored["entries"].items()
        if torch.is_tensor(value)
    )
    assert loaded.config.replay == ReplayConfig(**{**vars(cfg.replay)})
    del live
    gc.collect()
    assert os.listdir(tmp_path / "replays") == []


def test_what_is_loaded_is_in_evaluation_mode_and_trains_on(tmp_path: Path) -> None:
    cfg = config("mlp", total_frames=120, anneal_lr=False)
    start(cfg, tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "frames_120.pt").unlink()
    loaded, again = load(tmp_path / "run"), load(tmp_path / "run")
    assert not any(part.training for part in loaded.policy.modules())
    again.policy.train()
    for one in (loaded, again):
        torch.manual_seed(0)
        next(iterate(one.parts))
    trained = again.policy.state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in loaded.policy.state_dict().items())


def test_two_runs_with_one_directory_of_replays_train_as_alone(tmp_path: Path) -> None:
    def policy(name: str, directory: Path, seed: int = 0) -> dict[str, torch.Tensor]:
        cfg = small_q_config(seed=seed, replay={"stored_on": "disk", "directory": str(directory)})
        start(cfg, tmp_path / name)
        return load(tmp_path / name).policy.state_dict()

    alone = policy("alone", tmp_path / "one")
    other = small_q_config(seed=5, replay={"stored_on": "disk", "directory": str(tmp_path / "two")}).build()
    for batch in other.collector:
        other.buffer.extend(other.prepare(batch))
    beside = policy("beside", tmp_path / "two")
    assert all(torch.equal(value, beside[name]) for name, value in alone.items())


def test_a_run_resumes_and_loads_after_those_that_it_began_with_have_gone(tmp_path: Path) -> None:
    first = run(tmp_path / "first", config("gru", total_frames=60))
    began = config(
        "gru",
        total_frames=240,
        anneal_lr=False,  # it would fall more slowly in the run that is resumed
        opponents={"agent": RunOpponent(str(first), sampled=True)},
        initial={"adversary": str(first)},
    )
    whole = run(tmp_path / "whole", began)
    began.total_frames = 120
    stopped = run(tmp_path / "stopped", began)
    shutil.rmtree(first)
    cfg = read_config(stopped)
    cfg.total_frames = 240
    resume(cfg, stopped)
    expected, found = load(whole).policy.state_dict(), load(stopped).policy.state_dict()
    assert expected.keys() == found.keys()
    assert any(".actor." in name for name in found)
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    assert read_config(stopped).opponents["agent"] == RunOpponent(str(first), sampled=True)
    # What it fought can be fought by others, too.
    run(tmp_path / "third", config("gru", total_frames=60, opponents={"agent": RunOpponent(str(stopped))}))
