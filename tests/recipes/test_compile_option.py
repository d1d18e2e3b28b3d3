"""When a recipe compiles, and runs that are compiled for a while."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
import torch
from ctde_kit.recipes import config
from ctde_kit.recipes.config import WORTH_COMPILING, resolve_compile
from ctde_kit.recipes.mappo import build
from ctde_kit.recipes.tasks import VmasTask

from ctde_kit.errors import UserError
from ctde_kit.training import iterate, load_parts, read_checkpoint, save_checkpoint
from tests.recipes.small import small_config


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = os.environ.get("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "inductor"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", directory)


@pytest.mark.parametrize(
    ("compile", "frames", "compiled"),
    [
        ("auto", WORTH_COMPILING - 1, False),
        ("auto", WORTH_COMPILING, True),
        ("on", 1, True),
        ("off", 10**9, False),
    ],
)
def test_long_runs_are_compiled(compile: str, frames: int, compiled: bool) -> None:
    assert WORTH_COMPILING == 100_000
    assert resolve_compile(compile, frames) is compiled


def test_compiled_code_is_kept_where_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/somewhere")
    resolve_compile("on", 1)
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/somewhere"
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    resolve_compile("on", 1)
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(Path.home() / ".cache" / "ctde_kit")


@pytest.mark.parametrize(("compile", "lines"), [("on", 1), ("off", 0)])
def test_without_a_toolchain_it_runs_plainly(
    compile: str, lines: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(config, "missing_toolchain", lambda: "no C++ compiler is found")
    with caplog.at_level(logging.WARNING, logger="ctde_kit"):
        assert resolve_compile(compile, 1) is False
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["this run is not compiled: no C++ compiler is found"] * lines


def test_another_word_is_named() -> None:
    with pytest.raises(UserError, match=r"compile='?maybe'?: expected"):
        small_config(compile="maybe")


@pytest.mark.parametrize(("first", "second"), [("on", "off"), ("off", "on")])
def test_a_run_goes_on_with_the_other_choice(first: str, second: str, tmp_path: Path) -> None:
    task = VmasTask(name="vmas/balance", n_envs=6, max_steps=7, params={"n_agents": 2})
    parts = build(small_config(compile=first, task=task))
    loop = iterate(parts)
    for _ in range(2):
        next(loop)
    assert (parts.collector._compiled is not None) == (first == "on")
    assert bool(parts.update._compiled) == (first == "on")
    save_checkpoint(tmp_path / "c.pt", parts, algorithm="mappo", frames=parts.collector.frames)

    resumed = build(small_config(compile=second, task=task))
    assert load_parts(read_checkpoint(tmp_path / "c.pt", algorithm="mappo"), resumed) == 120
    saved = {name: value.clone() for name, value in resumed.update.losses.state_dict().items()}
    assert [iteration.frames for iteration in iterate(resumed)] == [180, 240]
    assert (resumed.collector._compiled is not None) == (second == "on")
    parameters = resumed.update.losses.state_dict()
    assert all(torch.isfinite(value).all() for value in parameters.values())
    assert any(not torch.equal(value, saved[name]) for name, value in parameters.items())
