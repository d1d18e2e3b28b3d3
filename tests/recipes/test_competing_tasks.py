"""The tasks whose groups compete: sizes, rewards of their own, and what is reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ctde_kit.recipes.commands.running import start
from ctde_kit.specs import TeamSpec
from tests.recipes.command_line import composed
from tests.recipes.small import small_config


def task_of(*overrides: str) -> Any:
    return composed("mappo", *overrides).task


@pytest.mark.parametrize(
    ("name", "steps", "groups"),
    [
        ("vmas/simple_tag", 50, {"adversary": (3, 16), "agent": (1, 14)}),
        ("pettingzoo/simple_tag", 50, {"adversary": (3, 16), "agent": (1, 14)}),
        ("vmas/simple_adversary", 25, {"adversary": (1, 8), "agent": (2, 10)}),
        ("pettingzoo/simple_adversary", 25, {"adversary": (1, 8), "agent": (2, 10)}),
    ],
)
def test_groups_sizes_and_rewards_of_their_own(name: str, steps: int, groups: dict[str, tuple[int, int]]) -> None:
    task = task_of(f"task={name}")
    assert task.groups_compete
    assert task.max_steps == steps
    env = task.build(seed=0, device="cpu", n_envs=40)
    team = TeamSpec.from_env(env)
    assert {group.name: (group.n_agents, group.observation_dim) for group in team} == groups
    rewards = env.rollout(steps, break_when_any_done=False).get("next")
    adversary, agent = rewards["adversary", "reward"], rewards["agent", "reward"]
    assert adversary.shape == (40, steps, groups["adversary"][0], 1)
    assert agent.shape == (40, steps, groups["agent"][0], 1)
    assert adversary.abs().sum() > 0
    assert not adversary.mean(-2).equal(agent.mean(-2))
    assert rewards["truncated"][:, -1].all()
    assert not rewards["terminated"].any()
    env.close()


def test_only_the_groups_returns_are_reported(tmp_path: Path) -> None:
    task = task_of("task=vmas/simple_tag", "task.n_envs=6", "task.max_steps=7")
    config = small_config(task=task, total_frames=60)
    start(config, tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert sorted(name for name in summary if name.startswith("eval/")) == [
        "eval/adversary/return_mean",
        "eval/adversary/return_sum",
        "eval/agent/return_mean",
        "eval/agent/return_sum",
        "eval/episodes",
    ]
    assert summary["eval/adversary/return_sum"] == pytest.approx(3 * summary["eval/adversary/return_mean"])
