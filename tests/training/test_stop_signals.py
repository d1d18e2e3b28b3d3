"""SIGINT and SIGTERM: a run ends at the end of an iteration with a checkpoint, or in time without one."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ctde_kit.errors import RunStopped
from ctde_kit.recipes.commands import run_guard
from ctde_kit.recipes.commands.running import resume, start
from ctde_kit.training import checkpoint_paths, latest_checkpoint, runner
from ctde_kit.training.stop_signals import StopSignals
from tests.forked import Forked
from tests.recipes.command_line import ENVIRONMENT, call_here, command
from tests.recipes.small import SMALL_OVERRIDES, small_config

pytestmark = pytest.mark.usefixtures("no_curves")


def policy(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(latest_checkpoint(run / "checkpoints"), weights_only=True)["parts"]["policy"]


def when(monkeypatch: pytest.MonkeyPatch, frames: int, action: Any) -> None:
    """Call ``action`` in the middle of the iteration that ends with so many frames."""
    summarize = runner._train_metrics

    def metrics(iteration: Any, settings: Any) -> dict[str, float]:
        if iteration.frames == frames:
            action()
        return summarize(iteration, settings)

    monkeypatch.setattr(runner, "_train_metrics", metrics)


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_the_iteration_ends_a_checkpoint_is_written_and_the_run_goes_on_alike(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(checkpoint=type(small_config().checkpoint)(every_frames=10_000))
    whole, path = tmp_path / "whole", tmp_path / "it's (1)"
    start(config, whole)
    with monkeypatch.context() as patch:
        when(patch, 120, lambda: os.kill(os.getpid(), number))
        with pytest.raises(RunStopped) as caught:
            start(config, path)
    assert caught.value.signal == number
    assert str(caught.value) == f"stopped; go on with {shlex.join(['ctde-mappo', f'resume={path}'])}"
    assert [file.name for file in (path / "checkpoints").glob("frames_*")] == ["frames_120.pt"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    resume(config, path)
    after, expected = policy(path), policy(whole)
    assert all(torch.equal(value, after[name]) for name, value in expected.items())


def test_an_iteration_that_takes_too_long_is_given_up_and_the_last_checkpoint_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):
            time.sleep(0.01)

    monkeypatch.setattr(run_guard, "StopSignals", lambda: StopSignals(grace=0.3))
    with monkeypatch.context() as patch:
        when(patch, 120, hang)
        begun = time.monotonic()
        with pytest.raises(RunStopped, match="go on with ctde-mappo resume="):
            start(small_config(), tmp_path)
    assert time.monotonic() - begun < 9
    assert [file.name for file in checkpoint_paths(tmp_path / "checkpoints")] == ["frames_60.pt"]
    assert resume(small_config(), tmp_path)["frames"] == 240


def test_an_interruption_that_is_swallowed_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctde_kit.training.stop_signals.INSIST", 0.1)
    stop, swallowed = StopSignals(grace=0.1), []

    def work() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            time.sleep(5)
        except KeyboardInterrupt as interruption:
            swallowed.append(interruption)
        time.sleep(5)

    with stop.listening(), pytest.raises(RunStopped):
        work()
    assert len(swallowed) == 1


def test_a_stop_before_the_first_checkpoint_leaves_nothing_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_guard, "StopSignals", lambda: StopSignals(grace=0.1))
    with monkeypatch.context() as patch:
        when(patch, 60, lambda: (os.kill(os.getpid(), signal.SIGINT), time.sleep(5)))
        with pytest.raises(RunStopped, match="start it again: there was no checkpoint yet"):
            start(small_config(), tmp_path)
    assert not (tmp_path / "config.yaml").exists()
    assert start(small_config(), tmp_path)["frames"] == 240


def test_a_stop_in_the_last_iteration_ends_the_run_and_what_would_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    when(monkeypatch, 240, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path)
        arguments = ["task=vmas/navigation", *SMALL_OVERRIDES, "total_frames=240", "hydra.sweep.dir=sweep"]
        result = call_here(tmp_path, "mappo", "-m", "seed=0,1", *arguments)
    assert result.returncode == 128 + signal.SIGTERM
    assert (tmp_path / "sweep" / "0_seed_0" / "summary.json").is_file()
    assert not (tmp_path / "sweep" / "1_seed_1").exists()


LONG = [*SMALL_OVERRIDES, "hydra.run.dir=run", "evaluation.every_frames=1000000", "checkpoint.every_frames=1000000"]


def begin(
    cwd: Path, recipe: str, *arguments: str, waits_for: str = "metrics.csv", environment: dict[str, str] | None = None
) -> subprocess.Popen:
    """A run in a process group of its own, once it has written a file, its first row by default."""
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(
        command(recipe, *arguments),
        cwd=cwd,
        env={**ENVIRONMENT, **(environment or {})},
        start_new_session=True,
        **pipes,
    )
    deadline = time.monotonic() + 120
    while not (cwd / "run" / waits_for).exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def test_a_second_signal_ends_the_process_at_once() -> None:
    def work(say: Callable[[str], None], _: Callable[[], str]) -> None:
        with StopSignals().listening():
            say("listening")
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                time.sleep(0.1)

    process = Forked(work)
    assert process.said() == "listening"
    for _ in range(2):  # `timeout`, for one, sends a signal to the process and to its group: that is one
        os.kill(process.pid, signal.SIGINT)
        time.sleep(0.3)
    assert process.is_alive()
    time.sleep(1)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(5) == -signal.SIGTERM  # 143 in a shell


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_outlive_a_signal_to_the_whole_group(number: int, tmp_path: Path) -> None:
    task = ["task=lbf/foraging_8x8_2p_2f_coop", "task.n_workers=2"]
    arguments = [option for option in LONG if "params" not in option]
    process = begin(tmp_path, "mappo", *task, *arguments, "total_frames=60000000", "compile=off")
    os.killpg(process.pid, number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + number, stderr
    said = re.search(r"ctde-mappo: stopped; go on with (ctde-mappo resume=(\S+))\n", stderr)
    assert said, stderr
    assert said[2] == str(tmp_path / "run")
    frames = int(latest_checkpoint(tmp_path / "run" / "checkpoints").stem.partition("_")[2])
    resumed = call_here(tmp_path, "mappo", f"resume={said[2]}", f"total_frames={frames + 60}")
    assert resumed.returncode == 0, resumed.stderr
    assert latest_checkpoint(tmp_path / "run" / "checkpoints").stem == f"frames_{frames + 60}"


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0, 1, 3, 7])
@pytest.mark.parametrize("to_group", [False, True])
def test_a_signal_while_compiling_is_not_lost(to_group: bool, seconds: float, tmp_path: Path) -> None:
    cache = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    arguments = [*LONG, "task=vmas/navigation", "total_frames=60000000", "compile=on"]
    process = begin(tmp_path, "mappo", *arguments, waits_for="config.yaml", environment=cache)
    time.sleep(seconds)
    (os.killpg if to_group else os.kill)(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT, stderr
    assert "ctde-mappo: stopped; " in stderr
    assert "Traceback" not in stderr
