"""Paths are data: of runs and replays, and of the working directory, whatever characters they hold."""

from __future__ import annotations

import gc
import os
import random
import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ctde_kit.recipes import load
from ctde_kit.recipes.commands.application import compose
from ctde_kit.recipes.commands.loading import read_config
from ctde_kit.recipes.commands.quoting import quoted
from tests.recipes.command_line import call_here
from tests.recipes.test_opponent_command_line import TAG, weights

ODD = ["a=b", "a (copy)", "it's", "a,b", "a${seed}", "${oc.env:HOME}", "a\\", "a{b}[c]", 'q"q', "~a", "a#b: c", "ä"]
# One folder that holds what each of them does.
ALL = "o'dd (1), a=b ${seed} [x] 'y'\\"
SHORT = [*TAG, "total_frames=60", "evaluation.episodes=1"]


@pytest.mark.parametrize("text", [*ODD, ALL, "\\${x}", "\\\\'", "'", "\\\\${x"])
def test_quoted_text_is_what_it_was(text: str) -> None:
    config = OmegaConf.to_object(compose("mappo", [f"++initial.agents={quoted(text)}"]))
    assert config.initial == {"agents": text}


def test_quoted_text_of_any_characters_is_what_it_was() -> None:
    draw = random.Random(0)
    texts = ["".join(draw.choices("a/ '\"\\${}()[],=:#~${${", k=draw.randrange(1, 15))) for _ in range(25)]
    overrides = [f"++initial.g{index}={quoted(text)}" for index, text in enumerate(texts)]
    config = OmegaConf.to_object(compose("mappo", overrides))
    assert list(config.initial.values()) == texts


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory of an odd name, with a run in one of an odd name."""
    folder = tmp_path_factory.mktemp("paths") / ALL
    folder.mkdir()
    result = call_here(folder, "mappo", *SHORT, "hydra.run.dir=plain")
    assert result.returncode == 0, result.stderr
    (folder / "plain").rename(folder / ALL)
    return folder


def test_a_run_is_found_kept_and_resumed(folder: Path) -> None:
    sides = [f"opponents.agent={ALL}", f"initial.adversary={folder / ALL}"]
    result = call_here(folder, "mappo", *SHORT, *sides)
    assert result.returncode == 0, result.stderr
    (run,) = (folder / "runs" / "mappo" / "vmas" / "simple_tag").iterdir()
    config = read_config(run)
    assert config.opponents["agent"].directory == config.initial["adversary"] == str(folder / ALL)
    for arguments in ([f"resume={run}"], [f"resume={run.relative_to(folder)}"]):
        frames = load(run).frames + 60
        resumed = call_here(folder, "mappo", *arguments, f"total_frames={frames}")
        assert resumed.returncode == 0, resumed.stderr
        assert load(run).frames == frames
    assert weights(run.parent, run.name, 180)


def test_jobs_of_a_sweep_get_the_runs_between_the_commas(folder: Path) -> None:
    shutil.copytree(folder / ALL, folder / "other", dirs_exist_ok=True)
    arguments = ["-m", f"opponents.agent={ALL},other", "hydra.sweep.dir=sweep, of two"]
    result = call_here(folder, "mappo", *SHORT, *arguments)
    assert result.returncode == 0, result.stderr
    jobs = sorted((folder / "sweep, of two").glob("?_agent_*"))
    assert [read_config(job).opponents["agent"].directory for job in jobs] == [
        str(folder / ALL),
        str(folder / "other"),
    ]


@pytest.mark.parametrize("sides", [[ALL, ALL], [f"[{ALL},random]", f"[{ALL}]"]])
def test_sides_of_a_cross_play(sides: list[str], folder: Path, tmp_path: Path) -> None:
    adversary, agent = sides
    arguments = [f"adversary={adversary}", f"agent={agent}", "episodes=1", f"hydra.run.dir={tmp_path / ALL}"]
    result = call_here(folder, "cross-play", *arguments, "device=cpu")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / ALL.replace("${seed}", "0") / "cross_play.csv").is_file()


def test_a_directory_of_replays(tmp_path: Path) -> None:
    options = ["task=matrix/climbing", "replay.stored_on=disk", f"replay.directory={tmp_path / ALL}", "device=cpu"]
    quick = ["frames_per_batch=64", "total_frames=64", "evaluation.episodes=1", "replay.capacity=100"]
    result = call_here(tmp_path, "vdn", *options, *quick, "hydra.run.dir=run")
    assert result.returncode == 0, result.stderr
    gc.collect()
    assert os.listdir(tmp_path / ALL) == []  # it was private, and has ended with its run
    assert read_config(tmp_path / "run").replay.directory == str(tmp_path / ALL)
