"""``ctde describe``: what it says of an environment."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from torchrl.envs import Compose, InitTracker, StepCounter, TransformedEnv

from ctde_kit.envs.games import RecallEnv
from ctde_kit.recipes.commands.describe import border_changes
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


OWN = """
import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

class Rivals(ParallelEnv):
    metadata = {"name": "rivals"}
    possible_agents = ["cat_0", "cat_1", "dog_0"]

    def observation_space(self, agent):
        return spaces.MultiDiscrete([2, 3]) if agent == "dog_0" else spaces.Box(0, 9, (2, 2), np.int64)

    def action_space(self, agent):
        return spaces.Discrete(2)

    def observe(self):
        return {a: np.ones(2, int) if a == "dog_0" else np.ones((2, 2), np.int64) for a in self.agents}

    def reset(self, seed=None, options=None):
        self.agents = [*self.possible_agents]
        return self.observe(), {a: {} for a in self.agents}

    def step(self, actions):
        no = dict.fromkeys(self.agents, False)
        rewards = {a: float(actions["dog_0"]) * (1 if a == "dog_0" else -1) for a in self.agents}
        return self.observe(), rewards, no, no, {a: {} for a in self.agents}
"""


def test_what_the_border_changes_and_what_is_to_be_said_of_groups(tmp_path: Path) -> None:
    (tmp_path / "rivals.py").write_text(OWN)
    task = ("task=pettingzoo/rivals.py:Rivals", "task.max_steps=5", "task.n_workers=1")
    shown = described(tmp_path, *task)
    assert "  border  cat observation: int64 [2, 2] as 4 floats\n" in shown
    assert "  border  dog observation: MultiDiscrete([2 3]) as 5 floats\n" in shown
    assert "correlation of their returns -1.00 (nobody has said whether they compete)\n" in shown
    assert shown.count("task.groups_compete=") == 1  # one piece of advice


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing: expected task=NAME"),
        (("seed=1", "task=vmas/simple"), "seed=1: expected task=NAME"),
        (("task=vmas/simples",), "did you mean"),
        (("task=vmas/simple", "task.max_stepz=4"), "did you mean task.max_steps"),
        (("task=matrix/climbing", "task.payoff=[[1,2],[3]]"), "error: task.payoff: expected a table of numbers"),
    ],
)
def test_mistakes_are_one_line(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    ended = call_here(tmp_path, "describe", *arguments)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_transforms_of_an_environments_own_change_nothing_at_the_border() -> None:
    env = RecallEnv(3, n_agents=2, n_cues=4, length=3)
    assert border_changes(env) == border_changes(TransformedEnv(env, StepCounter())) == []
    assert border_changes(TransformedEnv(env, Compose(StepCounter(), InitTracker()))) == []
