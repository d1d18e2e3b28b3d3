"""Tasks that give a recipe what it needs."""

from __future__ import annotations

import copy
import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from ctde_kit.envs.vmas import shipped_scenarios
from ctde_kit.errors import UserError
from ctde_kit.recipes import (
    COMAConfig,
    EvaluationConfig,
    HAPPOConfig,
    MADDPGConfig,
    MAPPOConfig,
    MASACConfig,
    MatrixTask,
    PettingZooTask,
    PQNConfig,
    QMIXConfig,
    RunOpponent,
    VmasTask,
    named_task,
)
from ctde_kit.recipes.commands import catalog
from ctde_kit.recipes.commands.options import options_of
from tests.recipes.command_line import call_here, composed


@pytest.mark.parametrize(
    ("recipe", "task", "continuous"),
    [
        ("mappo", "vmas/navigation", True),
        ("maddpg", "vmas/navigation", True),
        ("qmix", "vmas/navigation", False),
        ("pqn", "vmas/navigation", False),
        ("mappo", "pettingzoo/simple_spread", False),
        ("qmix", "pettingzoo/simple_spread", False),
        ("mappo", "pettingzoo/multiwalker", None),
        ("mappo", "communication/cue", None),
    ],
)
def test_a_task_has_the_kind_of_action_that_the_recipe_needs(recipe: str, task: str, continuous: bool | None) -> None:
    assert composed(recipe, f"task={task}").task.continuous is continuous


@pytest.mark.parametrize("continuous", [True, False])
def test_a_choice_that_is_given_stays(continuous: bool) -> None:
    for config in (MAPPOConfig, QMIXConfig, PQNConfig):
        assert config(task=VmasTask(continuous_actions=continuous)).task.continuous is continuous
        assert config(task=PettingZooTask(continuous_actions=continuous)).task.continuous is continuous


def test_a_task_is_not_changed_by_the_recipe_that_takes_it() -> None:
    task = VmasTask()
    assert QMIXConfig(task=task).build().collector.env.base_env.continuous_actions is False
    assert task.continuous_actions is None


def test_a_task_brings_its_own_number_of_frames() -> None:
    game = composed("qmix", "task=matrix/two_step")
    assert (game.total_frames, game.frames_per_batch, game.evaluation.every_frames) == (10_000, 480, 960)
    assert composed("qmix", "task=matrix/two_step", "total_frames=960").total_frames == 960


@pytest.mark.parametrize("name", [name for name in options_of("task") if name.startswith("matrix/")])
def test_a_task_brings_its_own_number_of_frames_from_python_too(name: str) -> None:
    for recipe, config in (("qmix", QMIXConfig), ("pqn", PQNConfig), ("mappo", MAPPOConfig)):
        assert config(task=named_task(name)) == composed(recipe, f"task={name}")
    own = QMIXConfig(task=MatrixTask(), total_frames=300_000, evaluation=EvaluationConfig(episodes=7))
    assert (own.total_frames, own.frames_per_batch, own.evaluation.every_frames) == (300_000, 480, 20_000)
    for again in (replace(own), copy.deepcopy(own), pickle.loads(pickle.dumps(own))):
        assert again == own
    assert QMIXConfig().total_frames == QMIXConfig(task=VmasTask()).total_frames == 300_000
    assert composed("qmix").total_frames == 300_000


def test_every_scenario_of_vmas_is_a_task() -> None:
    assert [name for name in options_of("task") if name.startswith("vmas/")] == [
        f"vmas/{s}" for s in shipped_scenarios()
    ]


def test_a_named_task_is_the_command_lines() -> None:
    assert MAPPOConfig(task=named_task("vmas/balance")).task == composed("mappo", "task=vmas/balance").task
    assert named_task("vmas/balance").continuous is True
    assert QMIXConfig(task=named_task("vmas/balance", n_envs=7)).task.continuous is False
    with pytest.raises(UserError, match=r"'vmas/balanse': there is no such task; did you mean vmas/balance"):
        named_task("vmas/balanse")
    with pytest.raises(UserError, match=r"n_env: vmas/balance has the options name, n_envs, "):
        named_task("vmas/balance", n_env=7)
    with pytest.raises(UserError, match=r"n_agents: .*are given as params=\{'n_agents': ...\}"):
        named_task("vmas/balance", n_agents=3)
    assert named_task("vmas/navigation", params={"n_agents": 4}).params == {"n_agents": 4, "shared_rew": False}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "vmas/navigation"}, "task='vmas/navigation': expected a TaskConfig, such as VmasTask()"),
        ({"actor": "gru"}, "actor='gru': expected a NetworkConfig, such as MLPNetwork()"),
        ({"critic": "attention"}, "critic='attention': expected a CriticConfig, such as ValueCriticConfig()"),
        ({"opponents": {"agent": "random"}}, "opponents.agent='random': expected an OpponentConfig, such as RandomOpp"),
        ({"gamma": "abc"}, "gamma='abc': expected a number"),
        ({"anneal_lr": 2}, "anneal_lr=2: expected true or false"),
        ({"total_frames": 1.5}, "total_frames=1.5: expected a whole number"),
        ({"seed": 2**63}, "seed=9223372036854775808: expected a number up to 9223372036854775807"),
        ({"max_grad_norm": float("inf")}, "max_grad_norm=inf: expected a finite number"),
        ({"evaluation": MAPPOConfig()}, "evaluation=MAPPOConfig(...): expected an EvaluationConfig, such as Evaluati"),
        ({"critic": None}, "critic=None: expected a CriticConfig"),
    ],
)
def test_a_part_of_another_type_is_named(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        MAPPOConfig(**options)


def test_configurations_are_made_by_keyword() -> None:
    for config in (MAPPOConfig, HAPPOConfig, QMIXConfig, PQNConfig, MADDPGConfig, MASACConfig, COMAConfig):
        with pytest.raises(TypeError, match=rf"{config.__name__}: options are given by keyword, .*found VmasTask\("):
            config(VmasTask())
        with pytest.raises(TypeError, match=r"has no option 'total_frame'; did you mean total_frames\?"):
            config(task=VmasTask(), total_frame=10)
    with pytest.raises(TypeError, match=r"VmasTask has no option 'nothing'; help.VmasTask. explains them"):
        VmasTask(nothing=3)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'directory'"):
        RunOpponent()


def test_a_task_that_is_assigned_later_gets_the_kind_of_action_too() -> None:
    config = QMIXConfig()
    config.task = VmasTask()
    assert config.task.continuous is False


def test_an_unknown_group_is_named() -> None:
    policy: Any = MAPPOConfig(task=VmasTask(n_envs=2)).build().policy
    with pytest.raises(UserError, match="group='agent': there is no such group; expected one of agents"):
        policy.for_agent("agent", 0)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_agents": 0, "shared_rew": False}, "does not build with task.params.n_agents=0: give another value, or "),
        ({"n_agents": "two"}, "task.params.n_agents='two': expected a whole number, as vmas/navigation's own value 4;"),
        ({"n_agents": 2.5}, "task.params.n_agents=2.5: expected a whole number, as vmas/navigation's own value 4;"),
        ({"n_agents": None}, "task.params.n_agents=None: expected a whole number, as vmas/navigation's own value 4;"),
    ],
)
def test_an_argument_that_the_scenario_refuses_is_named(params: dict, message: str) -> None:
    with pytest.raises(UserError) as error:
        VmasTask(n_envs=2, params=params).build(seed=0, device="cpu")
    assert message in str(error.value)
    assert "Error" not in str(error.value)


def test_a_task_is_shown_with_its_sizes(tmp_path: Path) -> None:
    shown = call_here(tmp_path, "tasks", "vmas/navigation").stdout.splitlines()
    assert shown[0] == "task=vmas/navigation"
    assert "  task.params.n_agents=3" in shown
    assert "  task.params.shared_rew=false" in shown
    assert shown[-1] == "  group agents: 3 agents, observation 18, action continuous, of 2"


def test_the_list_says_which_tasks_need_an_extra_and_there_is_a_version(tmp_path: Path) -> None:
    with mock.patch.object(catalog, "find_spec", return_value=None):
        shown = call_here(tmp_path, "tasks").stdout.splitlines()
    extras = {line.split()[0]: line for line in shown if "needs pip install" in line}
    assert 'pip install "ctde-kit[lbf]"' in extras["task=lbf/foraging_8x8_2p_2f_coop"]
    assert 'pip install "ctde-kit[sisl]"' in extras["task=pettingzoo/multiwalker"]
    assert not [line for line in extras if line.startswith(("task=vmas/", "task=matrix/"))]
    with mock.patch.object(catalog, "find_spec", return_value=object()):
        assert "needs pip install" not in call_here(tmp_path, "tasks").stdout
    versions = dict(line.split() for line in call_here(tmp_path, "--version").stdout.splitlines())
    assert list(versions) == ["ctde_kit", "torch", "torchrl", "tensordict", "vmas"]


def test_help_lists_the_choices_of_its_own_recipe(tmp_path: Path) -> None:
    shown = call_here(tmp_path, "pqn", "--help").stdout
    assert "mixer            none, qmix, qplex, vdn" in shown
    assert "exploration" not in shown


SCENARIO = """
from vmas.simulator.scenario import BaseScenario

CONFIG = {{}}
CONFIG.get("n_agents", "three")


class Scenario(BaseScenario):
{body}
    def reset_world_at(self, env_index=None):
        pass

    def observation(self, agent):
        pass

    def reward(self, agent):
        pass
"""
MAKE_WORLD = """
    def make_world(self, batch_dim, device, **kwargs):
        raise ValueError(f"no room for {kwargs.pop('n_agents')}")
"""


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "task.params.n_agents=3 .*abstract method"),
        (MAKE_WORLD, r"task.params.n_agents=3 \(ValueError: no room for 3\)"),
    ],
    ids=["cannot be made", "fails"],
)
def test_a_scenario_that_does_not_build_is_one_line(tmp_path: Path, body: str, message: str) -> None:
    file = tmp_path / "rooms.py"
    file.write_text(SCENARIO.format(body=body))
    task = VmasTask(name="vmas/rooms", scenario=f"{file}:Scenario", params={"n_agents": 3})
    with pytest.raises(UserError, match=message):
        task.build(seed=0, device="cpu")
