"""``callbacks=[MODULE:FUNCTION]``: a user's own code in a run, its state and errors, and that it needs trust."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tensordict import TensorDict

from ctde_kit.errors import CallbackError, UserError
from ctde_kit.recipes import load
from ctde_kit.recipes.configs.data import read_data
from ctde_kit.recipes.configs.own_callbacks import imported
from ctde_kit.recipes.configs.own_code import identified, recorded, with_changes
from ctde_kit.recipes.wiring.compiling import WORTH_COMPILING
from ctde_kit.training import Callbacks, Iteration, checkpoint_paths, read_checkpoint, read_metrics
from tests.recipes.command_line import assert_one_line, call_here
from tests.recipes.small import small_config

TINY = (
    "task=matrix/climbing",
    "task.n_envs=2",
    "total_frames=60",
    "frames_per_batch=12",
    "evaluation.episodes=4",
    "evaluation.every_frames=24",
    "checkpoint.every_frames=24",
)
MINE = """
import pathlib

HERE = pathlib.Path(__file__).parent
(HERE / "MARK").touch()


class Patience:
    '''Ends the run after so many iterations that it saw.'''

    def __init__(self, patience):
        self.patience, self.seen = patience, []

    def __call__(self, parts, iteration, row):
        self.seen.append(int(row["frames"]))
        (HERE / "seen.txt").write_text(str(self.seen))
        return len(self.seen) >= self.patience

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


stop = Patience(4)
broken = Patience(4)
broken.seen = None


def log(parts, iteration, row):
    with open(HERE / "log.txt", "a") as file:
        print(iteration.frames, row.get("eval/return_mean") is not None, file=file)


def fails(parts, iteration, row):
    if iteration.frames == 36:
        return 1 / 0


def two(iteration, row):
    pass


async def waits(parts, iteration, row):
    pass


number = 3
opened = type("Opened", (), {"__call__": lambda self, parts, iteration, row: None, "file": None})()
opened.file = open(__file__)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with the module ``my_callbacks``; importing it makes the file MARK there."""
    (tmp_path / "my_callbacks.py").write_text(MINE)
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").write_text("")
    (tmp_path / "my_package" / "inner.py").write_text(MINE)
    (tmp_path / "my_broken.py").write_text("import json\njson.loads('{')\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    forget()


def forget() -> None:
    for name in [name for name in sys.modules if name.startswith("my_")]:
        del sys.modules[name]


def test_they_are_called_and_recorded_and_one_ends_the_run(folder: Path) -> None:
    chosen = "callbacks=[my_package.inner:log,my_callbacks:stop]"
    result = call_here(folder, "vdn", *TINY, chosen, "hydra.run.dir=run")
    assert result.returncode == 0, result.stderr
    assert "ended by the callback my_callbacks:stop" in result.stdout
    summary = json.loads((folder / "run" / "summary.json").read_text())
    assert (summary["frames"], summary["ended_by"]) == (48, "my_callbacks:stop")
    lines = (folder / "my_package" / "log.txt").read_text().splitlines()
    assert lines == ["12 False", "24 True", "36 True", "48 True"]
    record = yaml.safe_load((folder / "run" / "code.yaml").read_text())
    assert record["my_callbacks:stop"] == {
        "path": str(folder / "my_callbacks.py"),
        "sha256": hashlib.sha256(MINE.encode()).hexdigest(),
    }
    assert record["my_package.inner:log"]["path"] == str(folder / "my_package")
    content = read_checkpoint(checkpoint_paths(folder / "run" / "checkpoints")[-1], algorithm="vdn")
    assert content["on_iteration"] == {"my_callbacks:stop": {"seen": [12, 24, 36, 48]}}


def test_a_run_that_was_stopped_goes_on_with_its_callbacks_state(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = "callbacks=[my_callbacks:fails,my_callbacks:stop]"
    failed = call_here(folder, "vdn", *TINY, chosen, "hydra.run.dir=run")
    assert_one_line(
        failed, "callback my_callbacks:fails at 36 frames: ZeroDivisionError: division by zero", program="ctde-vdn"
    )
    assert f"go on with ctde-vdn resume={folder / 'run'} trust=true" in failed.stderr
    assert "return 1 / 0" in (folder / "run" / "callback_traceback.txt").read_text()
    # Nothing that was learned is lost.
    assert [row["frames"] for row in read_metrics(folder / "run" / "metrics.csv")] == [12, 24, 36]
    assert checkpoint_paths(folder / "run" / "checkpoints")[-1].name == "frames_36.pt"
    code = read_data(folder / "run" / "code.yaml")
    (folder / "my_callbacks.py").write_text(MINE.replace("1 / 0", "None"))
    (folder / "MARK").unlink()
    forget()
    refused = call_here(folder, "vdn", "resume=run")
    assert_one_line(refused, "names code of its own, my_callbacks:fails", program="ctde-vdn")
    # To read a policy nothing of it is needed.
    load(folder / "run")
    assert not (folder / "MARK").exists()
    # A module of that name in another directory is another one: it is looked for here, and where Python looks.
    sys.path[:] = [path for path in sys.path if path != str(folder)]
    absent = call_here(folder / "my_package", "vdn", "resume=../run", "trust=true")
    assert_one_line(absent, "there is no module my_callbacks", program="ctde-vdn")
    resumed = call_here(folder, "vdn", "resume=run", "trust=true")
    assert resumed.returncode == 0, resumed.stderr
    assert (folder / "MARK").exists()
    assert "is not the code that the run was trained with" in caplog.text
    # It saw 12 and 24 before, 48 and 60 now: the fourth ends the run.
    assert (folder / "seen.txt").read_text() == "[12, 24, 48, 60]"
    assert json.loads((folder / "run" / "summary.json").read_text())["ended_by"] == "my_callbacks:stop"
    # Both codes are recorded, and the second one is no news any more.
    now = read_data(folder / "run" / "code.yaml")["my_callbacks:stop"]
    assert now.pop("changed") == [{"frames": 36, **recorded({"": folder / "my_callbacks.py"})[""]}]
    assert now == code["my_callbacks:stop"] != recorded({"": folder / "my_callbacks.py"})[""]
    caplog.clear()
    again = call_here(folder, "vdn", "resume=run", "trust=true", "total_frames=120")
    assert again.returncode == 0, again.stderr
    assert "is not the code" not in caplog.text


def test_each_code_that_trained_a_run_is_recorded_with_its_first_frame(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"

    def digest(content: str) -> str:
        file.write_text(content)
        return hashlib.sha256(content.encode()).hexdigest()

    code = {"mine:f": file}
    a = digest("a = 1")
    started = recorded(code)
    assert with_changes(started, code, 10) == started
    b = digest("b = 1")
    second = with_changes(started, code, 10)
    assert second["mine:f"]["changed"] == [{"frames": 10, "path": str(file), "sha256": b}]
    assert identified("mine:f", second) == f"f (code of SHA-256 {a}, then {b})"
    assert with_changes(second, code, 20) == second
    # Back at the frame where the second code began, the third one takes its place, and the first one undoes it.
    c = digest("c = 1")
    assert [change["sha256"] for change in with_changes(second, code, 10)["mine:f"]["changed"]] == [c]
    assert [change["sha256"] for change in with_changes(second, code, 20)["mine:f"]["changed"]] == [b, c]
    digest("a = 1")
    assert with_changes(second, code, 10) == started
    # What was not recorded is not made up.
    assert with_changes({}, code, 10) == {}


def test_each_run_of_a_process_has_a_state_of_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for _ in range(2):
        callbacks = Callbacks(imported(["my_callbacks:stop"]))
        callbacks(Any, Iteration(12, TensorDict(), {}), {"frames": 12})
        assert callbacks.state_dict() == {"my_callbacks:stop": {"seen": [12]}}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("my_callbacks:log", "callbacks=my_callbacks:log: expected a list"),
        ("[my_absent:log]", "callbacks=[my_absent:log]: there is no module my_absent"),
        ("[my_callbacks:two]", "expected a function of (parts, iteration, row), found (iteration, row)"),
    ],
)
def test_what_cannot_be_called_is_one_line_before_there_is_a_directory(value: str, message: str, folder: Path) -> None:
    result = call_here(folder, "vdn", *TINY, f"callbacks={value}", "hydra.run.dir=run")
    assert_one_line(result, message, program="ctde-vdn")
    assert not (folder / "run").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_absent.py:log", "there is no file"),
        ("my_package.absent:log", "there is no module my_package.absent"),
        ("builtins:print", "there is no module builtins"),
        ("my_callbacks:absent", "my_callbacks.py has no 'absent'"),
        ("my_callbacks:number", "callbacks=[my_callbacks:number]: expected a function, found int"),
        ("my_callbacks:Patience", "it is a class; name an object of it"),
        ("my_callbacks:waits", "a coroutine or generator would never run"),
        ("my_callbacks:opened", "it cannot be copied (TypeError"),
        ("my_broken:log", "callbacks=[my_broken:log]: it cannot be imported (JSONDecodeError"),
    ],
)
def test_what_else_cannot_be_called(name: str, message: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(UserError) as caught:
        imported([name])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_keeps_its_whole_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    config = small_config(callbacks=["my_callbacks.py:log"])
    assert config.callbacks == [f"{folder / 'my_callbacks.py'}:log"]
    assert config.own_code() == {config.callbacks[0]: folder / "my_callbacks.py"}
    assert callable(imported(config.callbacks)[config.callbacks[0]])


class Turning:
    """A state that cannot be saved from the second iteration on."""

    def __init__(self, broken: Any) -> None:
        self.calls, self.broken = 0, broken

    def __call__(self, parts: Any, iteration: Any, row: Any) -> None:
        self.calls += 1

    def state_dict(self) -> dict[str, Any]:
        return {"calls": self.calls if self.calls < 2 else self.broken(self.calls)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.calls = state_dict["calls"]


@pytest.mark.parametrize("broken", [np.int64, lambda calls: 1 / 0], ids=["numpy", "raises"])
def test_a_state_that_cannot_be_saved_leaves_a_checkpoint_that_can_be_loaded(broken: Any) -> None:
    callbacks = Callbacks({"turning": Turning(broken)})
    iteration: Any = Iteration(12, TensorDict(), {})
    callbacks(Any, iteration, {"frames": 12})
    with pytest.raises(CallbackError, match="callback turning at 12 frames"):
        callbacks(Any, iteration, {"frames": 12})
    assert callbacks.state_dict() == {"turning": {"calls": 1}}


def test_another_module_of_the_name_is_no_callback(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "my_callbacks.py").write_text(MINE)
    monkeypatch.chdir(folder / "elsewhere")
    imported(["my_callbacks:log"])
    sys.path[:] = [path for path in sys.path if path != str(folder / "elsewhere")]
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match="another module my_callbacks is imported already"):
        imported(["my_callbacks:log"])


def test_what_they_change_is_no_constant_of_a_graph(folder: Path) -> None:
    config = small_config(total_frames=6 * WORTH_COMPILING, compile="auto")
    assert config.build().collector.compile
    config.callbacks = ["my_callbacks:log"]
    assert not config.build().collector.compile
    config.compile = "on"
    assert config.build().collector.compile


def test_names_are_checked_from_python_too() -> None:
    for names, message in {
        ("log",): "expected MODULE:NAME or FILE.py:NAME",
        ("my module:log",): "expected MODULE:NAME or FILE.py:NAME",
        ("my_callbacks:log", "my_callbacks:log"): "it is there twice",
        ("__main__:log",): "a script cannot be imported",
    }.items():
        with pytest.raises(UserError, match=message):
            small_config(callbacks=list(names))
