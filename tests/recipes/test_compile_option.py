"""When a recipe compiles, and runs that are compiled for a while."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from ctde_kit.envs.vmas import VmasEnv
from ctde_kit.errors import UserError
from ctde_kit.recipes import VmasTask
from ctde_kit.recipes.wiring import compiling
from ctde_kit.recipes.wiring.compiling import (
    WORTH_COMPILING,
    Compiling,
    compile_steps,
    resolve_compile,
    unusable_cache,
)
from ctde_kit.training import Parts, iterate, load_parts, read_checkpoint, save_checkpoint
from tests.envs.scenarios import Drift
from tests.recipes.small import NORMALIZED, small_config


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = os.environ.get("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "inductor"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", directory)


class PureEnv:
    """As much of a VMAS env as the choice reads."""

    tensor_state = draw_initial_states = resets_to = state_dict = load_state_dict = None
    batch_size, device = torch.Size([60]), torch.device("cpu")


class ExternalEnv:
    """As much of a worker env as the choice reads."""

    outcome = begin_step = finish_step = obey_masks = answering = None
    batch_size, device = torch.Size([60]), torch.device("cpu")


class OtherEnv:
    """As much of another env as the choice reads."""

    batch_size, device = torch.Size([8]), None


@pytest.mark.parametrize(
    ("compile", "env", "frames", "updates_per_frame", "expected"),
    [
        ("auto", PureEnv(), 119_940, 1 / 60, Compiling(False, False)),
        ("auto", PureEnv(), 120_000, 1 / 61, Compiling(True, False)),
        ("auto", PureEnv(), 119_940, 1 / 12, Compiling(False, True)),
        ("auto", ExternalEnv(), 119_940, 1 / 60, Compiling(False, False)),
        ("auto", ExternalEnv(), 120_000, 1 / 61, Compiling(True, False)),
        ("auto", OtherEnv(), 10**6, 1.0, Compiling(False, True)),
        ("on", OtherEnv(), 1, 0.1, Compiling(True, True)),
        ("off", PureEnv(), 10**9, 1.0, Compiling(False, False)),
    ],
)
def test_what_is_called_often_is_compiled(
    compile: str, env: Any, frames: int, updates_per_frame: float, expected: Compiling
) -> None:
    assert WORTH_COMPILING == 2_000
    assert resolve_compile(compile, env, total_frames=frames, updates_per_frame=updates_per_frame) == expected


@pytest.mark.parametrize(
    ("compile", "steps", "expected"),
    [("auto", 1_999, False), ("auto", 2_000, True), ("on", 1, True), ("off", 9_999, False)],
)
def test_steps_of_a_vmas_env_are_compiled_where_there_are_many(compile: str, steps: int, expected: bool) -> None:
    env = VmasEnv("navigation", num_envs=7, max_steps=5)
    compile_steps(env, compile, steps)
    assert env.compile_step is expected


@pytest.mark.parametrize(("device", "prepared"), [("cpu", 1), ("cuda", 0)])
def test_the_compiler_is_prepared_for_cpus(device: str, prepared: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[None] = []
    monkeypatch.setattr(compiling, "prepare_compiler", lambda: calls.append(None))
    env: Any = PureEnv()
    env.device = torch.device(device)
    resolve_compile("on", env, total_frames=1, updates_per_frame=0.1)
    assert len(calls) == prepared


def choose(compile: str) -> Compiling:
    """The choice for a short run."""
    env: Any = PureEnv()
    return resolve_compile(compile, env, total_frames=1, updates_per_frame=1.0)


def test_compiled_code_is_kept_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for place in (tmp_path / "somewhere", None):
        monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
        monkeypatch.setenv("HOME", str(tmp_path))
        if place is not None:
            monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(place))
        choose("on")
        expected = place or tmp_path / ".cache" / "ctde_kit"
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(expected)
        assert expected.stat().st_mode & 0o777 == 0o700


def test_compiled_code_of_another_user_is_never_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(UserError, match=r"compiled code is run from there, and it belongs to user \d+, not to you"):
        choose("on")
    assert choose("off") == Compiling(False, False)


def test_without_a_place_for_compiled_code_a_run_is_eager(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/proc/nowhere")
    with caplog.at_level(logging.WARNING, "ctde_kit"):
        assert choose("on") == Compiling(False, False)
    assert len(caplog.records) == 1
    assert "no directory for compiled code" in caplog.text


@pytest.mark.parametrize(("compile", "lines"), [("on", 1), ("off", 0)])
def test_without_a_toolchain_it_runs_plainly(
    compile: str, lines: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compiling, "missing_toolchain", lambda: "no C++ compiler is found")
    with caplog.at_level(logging.WARNING, logger="ctde_kit"):
        assert choose(compile) == Compiling(False, False)
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["this run is not compiled: no C++ compiler is found"] * lines


def test_another_word_is_named() -> None:
    with pytest.raises(UserError, match=r"compile='?maybe'?: expected"):
        small_config(compile="maybe")


class DriftTask(VmasTask):
    """A scenario whose step is a small graph."""

    def build(self, *, seed: int, device: str, n_envs: int | None = None) -> VmasEnv:
        return VmasEnv(Drift(), num_envs=n_envs or self.n_envs, max_steps=self.max_steps, seed=seed, device=device)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [("on", "off"), ("off", "on")])
def test_a_run_goes_on_with_the_other_choice(first: str, second: str, tmp_path: Path, graphs: None) -> None:
    task = DriftTask(n_envs=6, max_steps=7)
    parts = small_config(compile=first, task=task).build()
    loop = iterate(parts)
    for _ in range(2):
        next(loop)
    assert (parts.collector._compiled is not None) == (first == "on")
    assert bool(parts.update._compiled) == (first == "on")
    save_checkpoint(tmp_path / "c.pt", parts, algorithm="mappo", frames=parts.collector.frames)

    resumed = small_config(compile=second, task=task).build()
    assert load_parts(read_checkpoint(tmp_path / "c.pt", algorithm="mappo"), resumed) == 120
    saved = {name: value.clone() for name, value in resumed.update.losses.state_dict().items()}
    assert [iteration.frames for iteration in iterate(resumed)] == [180, 240]
    assert (resumed.collector._compiled is not None) == (second == "on")
    parameters = resumed.update.losses.state_dict()
    assert all(torch.isfinite(value).all() for value in parameters.values())
    assert any(not torch.equal(value, saved[name]) for name, value in parameters.items())


def first_metrics(parts: Parts) -> list[Any]:
    """The metrics of the first update of each iteration, once it has been made."""
    schedule, firsts = parts.update_schedule, []

    def watched(buffer: Any, update: Any) -> Any:
        for index, metrics in enumerate(schedule(buffer, update)):
            firsts.extend([metrics] if index == 0 else [])
            yield metrics

    object.__setattr__(parts, "update_schedule", watched)
    return firsts


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mlp", "gru"])
def test_a_compiled_run_that_is_resumed_ends_as_the_one_that_never_stopped(
    kind: str, tmp_path: Path, graphs: None
) -> None:
    """Its statistics of observations and rewards move as it goes on."""
    task = DriftTask(n_envs=6, max_steps=7)
    parts = small_config(kind, compile="on", task=task, **NORMALIZED).build()
    firsts, loop = first_metrics(parts), iterate(parts)
    for _ in range(2):
        next(loop)
    rollout, steps = parts.collector._compiled, dict(parts.update._compiled)
    save_checkpoint(tmp_path / "c.pt", parts, algorithm="mappo", frames=parts.collector.frames)
    assert len(list(loop)) == 2
    # Nothing was compiled again, and a constant in one of the two graphs would set them apart.
    assert parts.collector._compiled is rollout
    assert dict(parts.update._compiled) == steps
    assert [abs(metrics["approx_kl"].item()) < 1e-6 for metrics in firsts] == [True] * 4
    resumed = small_config(kind, compile="on", task=task, **NORMALIZED).build()
    load_parts(read_checkpoint(tmp_path / "c.pt", algorithm="mappo"), resumed)
    assert len(list(iterate(resumed))) == 2
    assert all(compiled.is_whole for compiled in resumed.update._compiled.values())
    expected = parts.update.state_dict()
    for name, value in resumed.update.losses.state_dict().items():
        assert torch.equal(value, expected["losses"][name]), name
    for index, state in resumed.update.optimizer.state_dict()["state"].items():
        for name, value in state.items():
            assert torch.equal(value, expected["optimizer"]["state"][index][name]), (index, name)


def test_a_cache_that_inductor_chose_is_not_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", default_cache_dir())
    assert unusable_cache() is None
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / ".cache" / "ctde_kit")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "mine"))
    assert unusable_cache() is None
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "mine")
