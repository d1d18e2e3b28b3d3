"""The option ``threads``: what torch computes with, also after a resumption with another number."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.recipes.command_line import assert_one_line, call_here
from tests.recipes.small import SMALL_OVERRIDES, small_config


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def recorded(run: Path) -> list[int]:
    return [session["threads"] for session in json.loads((run / "facts.json").read_text())["sessions"]]


def test_a_run_computes_with_them_and_goes_on_with_others(tmp_path: Path) -> None:
    arguments = [*SMALL_OVERRIDES, "total_frames=60", "hydra.run.dir=run"]
    assert call_here(tmp_path, "mappo", *arguments, "threads=3").returncode == 0
    assert torch.get_num_threads() == 3
    assert call_here(tmp_path, "mappo", "resume=run", "total_frames=120", "threads=2").returncode == 0
    assert recorded(tmp_path / "run") == [3, 2]
    refused = call_here(tmp_path, "mappo", "resume=run", "total_frames=180", "threads=two")
    assert_one_line(refused, "threads=two: expected a whole number", program="ctde-mappo")


def test_without_the_option_they_are_left_alone() -> None:
    torch.set_num_threads(2)
    small_config().build()
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("value", ["0", "-1", "two"])
def test_only_whole_numbers_above_0(value: str, tmp_path: Path) -> None:
    refused = call_here(tmp_path, "mappo", f"threads={value}")
    assert_one_line(refused, f"threads={value}: expected a", program="ctde-mappo")
