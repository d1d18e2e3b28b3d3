"""The command lines as users call them."""

from __future__ import annotations

import csv
import datetime
import json
import re
import tomllib
from pathlib import Path
from unittest import mock

import pytest
import torch

from ctde_kit.recipes.commands.main import COMMANDS, LISTS
from ctde_kit.recipes.commands.recipes import RECIPES
from tests.recipes.command_line import assert_one_line, call, call_here, kill_and_resume
from tests.recipes.small import SMALL_OVERRIDES


@pytest.mark.slow
def test_run_killed_and_resumed_equals_the_run_that_never_stopped(tmp_path: Path) -> None:
    arguments = [*SMALL_OVERRIDES, "actor.num_cells=[8]", "critic.network.num_cells=[8]", "total_frames=1200"]
    kill_and_resume(tmp_path, "mappo", *arguments, after="frames_2*.pt")
    contents = [
        torch.load(tmp_path / run / "checkpoints" / "frames_1200.pt", weights_only=True) for run in ("whole", "killed")
    ]
    for name, value in contents[0]["parts"]["update"]["losses"].items():
        assert torch.equal(value, contents[1]["parts"]["update"]["losses"][name]), name
    with open(tmp_path / "killed" / "metrics.csv", newline="") as file:
        frames = [int(float(row["frames"])) for row in csv.DictReader(file)]
    assert frames == list(range(60, 1201, 60))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "whole"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["task=vmas/navigatoin"], "did you mean vmas/navigation"),
        (["gama=0.9"], "gama=0.9: there is no such option; did you mean gamma?"),
        (["total_frames=-5"], "total_frames=-5: expected a number above 0"),
        (["gamma=2"], "gamma=2.0: expected a ratio from 0 to 1"),
        (["seed=abc"], "seed=abc: expected a whole number"),
        (["task.params.n_agentz=3"], "task.params.n_agentz is never read by navigation: did you mean n_agents"),
        (["critic=state"], "critic=state: this env writes no root key 'state'; use critic=centralized"),
        (["frames_per_batch=1001"], "expected a multiple of the 60 envs"),
        (["hydra.run.dir=/proc/nowhere"], "/proc/nowhere cannot be written"),
        (["resume=nowhere"], "resume=nowhere: there is no such directory; give the directory that a run printed"),
        (["resume=nowhere", "lr=1"], "resume takes total_frames, device, compile, threads, logger"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments: list[str], message: str, tmp_path: Path) -> None:
    assert_one_line(call_here(tmp_path, "mappo", *arguments), message, program="ctde-mappo")


def test_a_process_of_its_own_ends_with_one_line_too(tmp_path: Path) -> None:
    assert_one_line(call(tmp_path, "mappo", "gamma=2"), "gamma=2.0: expected a ratio", program="ctde-mappo")


def test_resume_refuses_damaged_checkpoints_and_other_algorithms(tmp_path: Path) -> None:
    done = call_here(tmp_path, "ippo", *SMALL_OVERRIDES, "total_frames=120", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["algorithm"] == "ippo"
    other = call_here(tmp_path, "mappo", "resume=run")
    assert (other.returncode, other.stderr.count("\n")) == (2, 1)
    assert "resume it with ctde-ippo" in other.stderr
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:1000])
    damaged = call_here(tmp_path, "ippo", "resume=run", "total_frames=240")
    assert (damaged.returncode, damaged.stderr.count("\n")) == (2, 1)
    assert "truncated" in damaged.stderr


def test_multirun_gives_each_job_its_own_directory(tmp_path: Path) -> None:
    result = call_here(tmp_path, "mappo", "-m", "seed=0,1", *SMALL_OVERRIDES, "total_frames=60")
    assert result.returncode == 0, result.stderr
    summaries = list(tmp_path.rglob("summary.json"))
    assert sorted(json.loads(path.read_text())["seed"] for path in summaries) == [0, 1]


def test_two_starts_in_one_second_do_not_share_a_directory(tmp_path: Path) -> None:
    arguments = [*SMALL_OVERRIDES, "total_frames=60"]
    second = datetime.datetime(2026, 1, 2, 3, 4, 5)
    with mock.patch("hydra.core.utils.datetime", mock.Mock(now=lambda: second)):
        ended = [call_here(tmp_path, "mappo", *arguments).returncode for _ in range(2)]
    assert ended == [0, 0]
    assert all("2026-01-02_03-04-05" in str(path) for path in tmp_path.rglob("summary.json"))
    assert len(list(tmp_path.rglob("summary.json"))) == 2


def test_help_names_the_options(tmp_path: Path) -> None:
    result = call_here(tmp_path, "ippo", "--help")
    assert result.returncode == 0
    assert result.stdout.startswith("ctde-ippo: train a multi-agent policy")
    assert "total_frames" in result.stdout


def test_recipes_have_scripts_and_other_commands_are_spelled_with_ctde() -> None:
    root = Path(__file__).parents[2]
    scripts = tomllib.loads((root / "pyproject.toml").read_text())["project"]["scripts"]
    assert set(scripts) == {"ctde", *(f"ctde-{name}" for name in RECIPES)}
    unknown = re.compile(rf"\bctde-({'|'.join([*COMMANDS, *LISTS])})\b")
    files = [path for folder in ("docs", "recipes", "ctde_kit") for path in (root / folder).rglob("*")]
    files = [root / "README.md", *(path for path in files if path.suffix in (".md", ".py", ".yaml"))]
    assert len(files) > 300
    assert [str(path) for path in files if unknown.search(path.read_text())] == []


@pytest.mark.parametrize("name", ["tasks", "report", "cross-play", "evaluate"])
def test_errors_begin_with_the_command_as_it_is_spelled(tmp_path: Path, name: str) -> None:
    result = call_here(tmp_path, name, "--nothing=1")
    assert result.returncode == 2
    assert result.stderr.startswith(f"ctde {name}: error: ")
