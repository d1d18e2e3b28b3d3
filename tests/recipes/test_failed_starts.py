"""What can be known before the first frame is refused before anything is written, and the same command works again."""

from __future__ import annotations

import http.server
import os
import socket
import sys
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from ctde_kit.errors import UserError
from ctde_kit.recipes import LoggerConfig, VmasTask
from ctde_kit.recipes.commands.running import start
from ctde_kit.recipes.wiring import logger_checks
from ctde_kit.recipes.wiring.logger_checks import check_loggers
from ctde_kit.training import evaluations
from tests.recipes.command_line import assert_one_line, call_here
from tests.recipes.small import SMALL_OVERRIDES, small_config
from tests.recipes.small_q import small_pqn_config
from tests.reliability.faults import full_disk


@pytest.mark.parametrize(
    ("recipe", "arguments", "message"),
    [
        ("mappo", ["minibatch_frames=61"], "minibatch_frames=61: expected at most frames_per_batch=60"),
        ("pqn", ["minibatch_frames=61"], "minibatch_frames=61: expected at most frames_per_batch=60"),
        ("mappo", ["network@actor=gru", "sequence_length=4"], "sequence_length=4: expected a divisor of the 10 steps"),
        ("pqn", ["sequence_length=4"], "sequence_length=4: expected a divisor of the 10 steps"),
        ("mappo", ["frames_per_batch=61"], "frames_per_batch=61: expected a multiple of the 6 envs, such as 60"),
    ],
)
def test_a_batch_that_does_not_fit_is_known_at_once(
    recipe: str, arguments: list[str], message: str, tmp_path: Path
) -> None:
    small = [*SMALL_OVERRIDES, *(["task.continuous_actions=false"] if recipe == "pqn" else [])]
    result = call_here(tmp_path, recipe, "task=vmas/navigation", *small, *arguments, "hydra.run.dir=run")
    assert_one_line(result, message, program=f"ctde-{recipe}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("mappo", ["opponents.agents=random"]),
        ("mappo", ["opponents.agents=random", "hydra.run.dir=mine/made/run"]),
        ("mappo", ["task.params.n_agents=0", "hydra.run.dir=mine/made/${seed}/run"]),
        ("cross-play", ["task=vmas/navigation", "agents=random"]),
    ],
)
def test_a_refused_command_leaves_no_directory(command: str, arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert call_here(tmp_path, command, *arguments).returncode == 2
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]


def test_a_refused_start_leaves_no_directory(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"task\.params\.n_agents=0"):
        start(small_config(task=VmasTask(n_envs=6, params={"n_agents": 0})), tmp_path / "a" / "run")
    assert not list(tmp_path.iterdir())


def test_sequences_of_a_whole_batch_divide_it() -> None:
    assert small_pqn_config(sequence_length=None, minibatch_frames=20).build().buffer.sequence_length == 10


class Silent:
    """A server that takes connections and never answers."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self.socket.getsockname()[1]}"


@pytest.fixture
def answering() -> Iterator[str]:
    """The address of a server that answers, if only that there is nothing."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()


def test_an_address_of_mlflow_that_does_not_answer_is_refused(
    answering: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logger_checks, "SECONDS", 0.3)
    monkeypatch.setenv("no_proxy", "*")
    check_loggers(LoggerConfig("mlflow", tracking_uri=answering))
    check_loggers(LoggerConfig("mlflow"))
    silent = Silent()
    for uri in (silent.uri, "http://127.0.0.1:9", "http://no.such.host.invalid"):
        begun = time.monotonic()
        with pytest.raises(UserError, match=rf"logger\.tracking_uri={uri}: it does not answer within 0\.3 s") as caught:
            start(small_config(logger=LoggerConfig("mlflow", tracking_uri=uri)), tmp_path / "run")
        assert "\n" not in str(caught.value)
        assert time.monotonic() - begun < 10
        assert not (tmp_path / "run").exists()
    silent.socket.close()


def test_wandb_without_a_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = types.ModuleType("wandb")
    wandb.api = types.SimpleNamespace(api_key=None)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match=r"logger=wandb: no API key is found; .*logger\.offline=true"):
        start(small_config(logger=LoggerConfig("wandb")), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    check_loggers(LoggerConfig("wandb", offline=True))
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    check_loggers(LoggerConfig("wandb"))


@pytest.mark.usefixtures("no_curves")
def test_after_an_error_before_the_first_checkpoint_the_same_command_works_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, path = small_config(logger=LoggerConfig("tensorboard")), tmp_path / "run"
    path.mkdir()
    (path / "notes.txt").write_text("mine")
    with monkeypatch.context() as patch:
        fail = mock.Mock(side_effect=RuntimeError("an evaluation"))
        patch.setattr(evaluations, "evaluate", fail)
        with pytest.raises(RuntimeError, match="an evaluation"):
            start(small_config(evaluation=type(config.evaluation)(1, 2), logger=config.logger), path)
    assert {file.name for file in path.iterdir()} == {"notes.txt", ".lock"}
    with full_disk(room=200), pytest.raises(UserError, match="free some space, and start it again"):
        start(config, path)
    assert start(config, path)["frames"] == 240


@pytest.mark.usefixtures("no_curves")
def test_files_of_others_in_checkpoints_are_left_alone(tmp_path: Path) -> None:
    theirs = tmp_path / "checkpoints"
    theirs.mkdir()
    names = ["frames_best.pt", "frames_600 (copy).pt", "notes.txt"]
    for name in names:
        (theirs / name).write_text("mine")
    start(small_config(), tmp_path)
    assert {path.name for path in theirs.iterdir()} == {*names, "frames_180.pt", "frames_240.pt", "best.pt"}
    assert all((theirs / name).read_text() == "mine" for name in names)


def test_a_missing_directory_above_is_made(tmp_path: Path) -> None:
    task = VmasTask("vmas/navigation", n_envs=6, max_steps=7, params={"n_agents": 2, "shared_rew": False})
    start(small_config(task=task, total_frames=60), tmp_path / "a" / "b")
    assert sorted(os.listdir(tmp_path / "a" / "b" / "checkpoints")) == ["best.pt", "frames_60.pt"]
