"""``ctde describe``: what it says of an environment."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.recipes.command_line import call_here


def described(cwd: Path, *arguments: str) -> str:
    ended = call_here(cwd, "describe", *arguments)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_groups_masks_state_and_random_play(tmp_path: Path) -> None:
    shown = described(tmp_path, "task=communication/cue_groups")
    assert shown.splitlines()[:3] == [
        "task=communication/cue_groups: episodes of up to 4 steps",
        "  group listener  1 agent, observation 1, categorical action of 4; masks: none",
        "  group speaker   1 agent, observation 5, categorical action of 4; masks: none",
    ]
    assert "state  none" in shown
    assert "random play  20 episodes of 4 steps; return " in shown
    assert "listener and speaker: correlation of their returns 1.00 (task.groups_compete=false)" in shown
    assert re.search(r"doctor  (\d+) of \1 rules hold or do not apply", shown)


def test_opposed_interests_are_said(tmp_path: Path) -> None:
    shown = described(tmp_path, "task=vmas/simple_tag", "task.max_steps=30", "task.groups_compete=false")
    assert "group adversary  3 agents, observation 16, continuous action of 2 from -1 to 1; masks: none" in shown
    assert "correlation of their returns -1.00 (task.groups_compete=false)" in shown
    assert "give task.groups_compete=true" in shown


@pytest.mark.slow
def test_opposed_interests_that_are_known_need_no_word(tmp_path: Path) -> None:
    assert "give task.groups_compete=true" not in described(tmp_path, "task=vmas/simple_tag", "task.max_steps=30")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing: expected task=NAME"),
        (("seed=1", "task=vmas/simple"), "seed=1: expected task=NAME"),
        (("task=vmas/simples",), "did you mean"),
        (("task=vmas/simple", "task.max_stepz=4"), "did you mean task.max_steps"),
    ],
)
def test_mistakes_are_one_line(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    ended = call_here(tmp_path, "describe", *arguments)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
