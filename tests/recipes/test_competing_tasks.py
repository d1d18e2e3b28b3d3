"""The tasks whose groups compete: sizes, rewards of their own, and what is reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ctde_kit.errors import UserError
from ctde_kit.recipes import (
    CueTask,
    LbfTask,
    MADDPGConfig,
    MAPPOConfig,
    MatrixTask,
    PQNConfig,
    QMIXConfig,
    VmasTask,
    named_task,
)
from ctde_kit.recipes.commands.running import start
from ctde_kit.recipes.configs.data import to_data
from ctde_kit.recipes.configs.tasks.task import TaskConfig
from ctde_kit.recipes.wiring.saved_runs import SavedRun
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


@pytest.mark.parametrize(
    ("theirs", "ours", "message"),
    [
        (MatrixTask("game"), MatrixTask("game", payoff=[[1, 0], [0, 1]]), r"is a run of \[\[11, .*this is \[\[1, 0\]"),
        (CueTask("game"), CueTask("game", two_groups=True), "is a run of False, this is True"),
        (CueTask("game"), MatrixTask("game"), "is a run of a CueTask, this is a MatrixTask"),
        (VmasTask("vmas/a"), "vmas/a", "vmas/a, this is Scenario .code of SHA"),
        (LbfTask("lbf"), LbfTask("lbf", env_id="Foraging-5x5-2p-1f-v3"), "is a run of Foraging-8x8-2p-2f-coop-v3"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_run_of_another_env_of_that_name_is_no_run_of_the_task(
    theirs: TaskConfig, ours: TaskConfig | str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opponents, and the policies that a run begins with, are of the same task, whatever it is called."""
    config = {"algorithm": "qmix", "task": to_data(theirs), "opponents": {}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    Path("mine.py").touch()
    if isinstance(ours, str):
        # A file's place is that from which it is named.
        ours = VmasTask(ours, scenario="mine.py:Scenario")
    SavedRun(tmp_path).check_task(theirs)
    with pytest.raises(UserError, match=message):
        SavedRun(tmp_path).check_task(ours)


@pytest.mark.parametrize("recipe", [MAPPOConfig, QMIXConfig, MADDPGConfig, PQNConfig])
def test_several_groups_are_asked_whether_they_compete(recipe: Any) -> None:
    football = VmasTask("vmas/football", n_envs=2, max_steps=3, params={"ai_red_agents": False})
    with pytest.raises(
        UserError, match=r"task\.groups_compete: vmas/football has the groups agent_blue, agent_red; say true where"
    ):
        recipe(task=football).build()


def test_shipped_tasks_of_several_groups_say_it() -> None:
    for name in (
        "vmas/diff_drive",
        "vmas/kinematic_bicycle",
        "vmas/simple_speaker_listener",
        "communication/cue_groups",
    ):
        assert named_task(name).groups_compete is False
