"""What ``--help`` and ``ctde parts`` say of options."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

import pytest
import yaml

from ctde_kit.recipes.commands.recipes import RECIPES
from ctde_kit.recipes.configs.choices import CHOICES
from ctde_kit.recipes.configs.command_options import CriticLayoutsConfig, CrossPlayConfig
from ctde_kit.recipes.configs.loggers import LoggerConfig
from ctde_kit.recipes.configs.option_docs import documented
from ctde_kit.recipes.configs.policy_options import EvaluateConfig, ExportConfig, WatchConfig
from ctde_kit.recipes.configs.recipe import CheckpointConfig, EvaluationConfig
from ctde_kit.recipes.configs.replays import ReplayConfig
from tests.recipes.command_line import call_here, composed

COMMANDS = [recipe.config for recipe in RECIPES.values()]
TOOLS = [CriticLayoutsConfig, CrossPlayConfig, EvaluateConfig, ExportConfig, WatchConfig]
PARTS = [LoggerConfig, ReplayConfig, EvaluationConfig, CheckpointConfig]
CHOSEN = [made for kinds in CHOICES.values() for made in kinds.values()]


@pytest.mark.parametrize("config", dict.fromkeys([*COMMANDS, *TOOLS, *PARTS, *CHOSEN]))
def test_every_option_has_a_meaning(config: type) -> None:
    assert {field.name for field in dataclasses.fields(config)} <= {*documented(config)}


@pytest.mark.parametrize("config", dict.fromkeys([*COMMANDS, *PARTS, *CHOSEN]))
def test_pythons_help_explains_every_option_too(config: type) -> None:
    explained = re.findall(r"^ {4}(\w+): ", inspect.getdoc(config) or "", re.MULTILINE)
    assert len(explained) == len({*explained})
    assert {field.name for field in dataclasses.fields(config)} <= {*explained}


def test_what_a_recipe_says_of_an_option_stands_before_what_its_base_says() -> None:
    shown = inspect.getdoc(RECIPES["happo"].config) or ""
    assert "    epochs: passes over a batch, of each agent in its turn, and of the critic after them.\n" in shown
    assert "    gamma: discount per step.\n" in shown
    assert "\n\n>>> from ctde_kit.recipes import HAPPOConfig" in shown
    assert max(map(len, shown.splitlines())) <= 120


def options_shown(cwd: Path, *arguments: str) -> list[str]:
    shown = call_here(cwd, *arguments, "--help").stdout
    start = shown.index("\nalgorithm: ") + 1
    return shown[start : shown.index("\n\n", start)].splitlines()


def test_help_says_the_values_and_what_they_mean(tmp_path: Path) -> None:
    lines = options_shown(tmp_path, "masac")
    assert "gamma: 0.9                        # discount per step." in lines
    assert "  num_cells: [256, 256]           # widths of the hidden layers." in lines
    shown, config = yaml.safe_load("\n".join(lines)), composed("masac")
    assert (shown["critic"]["network"]["num_cells"], shown["alpha_init"]) == ([256, 256], config.alpha_init)
    assert {*shown} == {field.name for field in dataclasses.fields(config)}
    assert max(map(len, lines)) <= 120


def test_help_is_of_what_is_chosen(tmp_path: Path) -> None:
    lines = options_shown(tmp_path, "maddpg", "preset=distributed_maddpg", "network@actor=gru")
    assert "  hidden_size: 128                # of the GRU's state." in lines
    assert yaml.safe_load("\n".join(lines))["task"]["name"] == "pettingzoo/simple_tag"
    assert any("worker" in line and "#" in line for line in lines)  # options of that kind of task


def test_parts_say_what_sets_several_options_at_once(tmp_path: Path) -> None:
    shown = call_here(tmp_path, "parts").stdout.splitlines()
    assert "  preset=matd3  MATD3 (Ackermann et al. 2019), with TD3's numbers (Fujimoto et al. 2018)." in shown
    assert "  layout=attention  Attention over the other agents." in shown
    assert not [line for line in shown if line.endswith("  ")]


def test_choices_are_those_that_fit_the_recipe(tmp_path: Path) -> None:
    for recipe, critics in (("coma", "counterfactual"), ("happo", "centralized, state")):
        shown = call_here(tmp_path, recipe, "--help").stdout
        assert [line.split(maxsplit=1)[1] for line in shown.splitlines() if line.startswith("  critic ")] == [critics]
