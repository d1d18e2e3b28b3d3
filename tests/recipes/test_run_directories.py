"""A run directory is data: what is written is read back, and nothing else is ever built from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ctde_kit.errors import UserError
from ctde_kit.recipes import load
from ctde_kit.recipes.commands.loading import read_config
from ctde_kit.recipes.commands.recipes import RECIPES
from ctde_kit.recipes.configs.choices import CHOICES
from ctde_kit.recipes.configs.data import from_data, to_data
from ctde_kit.recipes.configs.opponents import RunOpponent
from tests.recipes.command_line import composed

MARK = {"_target_": "distutils.spawn.spawn", "_args_": [["touch", "MARK"]]}


def written(path: Path, change: Any = None) -> Path:
    """A run directory that holds a configuration alone, changed by ``change``."""
    data = to_data(composed("mappo"))
    if change is not None:
        change(data)
    (path / "config.yaml").write_text(yaml.safe_dump(data))
    return path


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_configuration_is_read_as_it_was_written(recipe: str) -> None:
    config = composed(recipe, "+opponent@opponents.agents=random")
    data = yaml.safe_load(yaml.safe_dump(to_data(config)))
    assert from_data(RECIPES[recipe].config, data, "config.yaml") == config


@pytest.mark.parametrize("declared", CHOICES)
def test_every_choice_is_read_as_it_was_written(declared: type) -> None:
    for kind, chosen in CHOICES[declared].items():
        config = RunOpponent("runs/first") if chosen is RunOpponent else chosen()
        data = to_data(config)
        if declared.__name__ != "ActorConfig" or chosen.__mro__[1] is declared:
            assert data["kind"] == kind
        assert from_data(declared, data, "actors.yaml") == config


def nest(key: str, value: Any) -> Any:
    """A change that puts ``value`` at a dotted ``key``."""

    def change(data: dict[str, Any]) -> None:
        *owners, last = key.split(".")
        for owner in owners:
            data = data[owner]
        data[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (nest("lr", MARK), r"config\.yaml: "),
        (nest("task.params.n_agents", MARK), None),
        (nest("task._target_", "os.system"), r"'_target_' is no option of VmasTask"),
        (nest("_target_", "os.system"), r"'_target_' is no option of MAPPOConfig"),
        (nest("actor.kind", "os.system"), r"expected `kind` to be one of mlp, gru, .*, found 'os\.system'"),
        (nest("algorithm", "os.system"), r"expected `algorithm` to be one of mappo, .*, found 'os\.system'"),
        (nest("device", "${oc.env:HOME}"), r"device: expected a value, found '\$\{oc\.env:HOME\}'"),
        (nest("task.params.x", ["${oc.env:HOME}"]), r"expected a value, found"),
        (nest("gamma", "much"), r"config\.yaml: .*'much'"),
        (nest("no_option", 1), r"'no_option' is no option of MAPPOConfig"),
        (nest("algorithm", ["mappo"]), r"expected `algorithm` to be one of mappo, .*, found \['mappo'\]"),
        (nest("opponents", 5), r"config\.yaml is no whole configuration"),
        (nest("device", "a\nb"), r"config\.yaml: device=a b: expected one of auto, cpu, cuda"),
        (nest("gamma", 10**400), r"config\.yaml: int too large"),
        (nest("task.params.x", {1, 2}), r"params\.x: expected a value, found \{1, 2\} of type set"),
    ],
)
def test_a_file_names_options_and_values_alone(
    change: Any, message: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if message is None:
        # An argument of a scenario is passed on as it is, a mapping here; nothing looks inside.
        assert read_config(written(tmp_path, change)).task.params["n_agents"] == MARK  # type: ignore[attr-defined]
    else:
        with pytest.raises(UserError, match=message) as caught:
            load(written(tmp_path, change))
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "MARK").exists()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "a: [",
        "- 1",
        "a: &a [*a]",
        "a: !!timestamp b",
        "a: " + "[" * 5000 + "]" * 5000,
        "!!python/object/apply:os.system ['touch MARK']",
    ],
)
def test_a_damaged_file_is_one_line(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(UserError, match=r"config\.yaml") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "MARK").exists()


def test_lists_of_pairs_look_nothing_up(tmp_path: Path) -> None:
    data = to_data(composed("vdn", "task=matrix/climbing"))
    data["task"]["payoff"] = "PAYOFF"
    content = yaml.safe_dump(data).replace("PAYOFF", "!!pairs [a: '${oc.env:HOME}']")
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(UserError, match=r"payoff: expected a value, found \('a', "):
        read_config(tmp_path)
