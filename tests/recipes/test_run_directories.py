"""A run directory is data: what is written is read back, and nothing else is ever built from it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ctde_kit.errors import UserError
from ctde_kit.recipes import load
from ctde_kit.recipes.commands.cross_play import play
from ctde_kit.recipes.commands.doctor import examine_run
from ctde_kit.recipes.commands.evaluate import evaluate
from ctde_kit.recipes.commands.export import export
from ctde_kit.recipes.commands.loading import read_config
from ctde_kit.recipes.commands.recipes import RECIPES
from ctde_kit.recipes.commands.running import resume, start
from ctde_kit.recipes.commands.watch import watch
from ctde_kit.recipes.configs.choices import CHOICES
from ctde_kit.recipes.configs.command_options import CrossPlayConfig
from ctde_kit.recipes.configs.data import from_data, to_data
from ctde_kit.recipes.configs.opponents import RandomOpponent, RunOpponent
from ctde_kit.recipes.configs.tasks.pettingzoo_task import PettingZooTask
from ctde_kit.recipes.wiring.saved_runs import SavedRun
from tests.recipes.command_line import call_here, composed
from tests.recipes.small import small_config
from tests.reliability.faults import flipped, random_bits

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
        assert read_config(written(tmp_path, change)).task.params["n_agents"] == MARK
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


def test_every_flipped_bit_of_a_configuration_is_noticed(tmp_path: Path) -> None:
    start(small_config(total_frames=60), tmp_path)
    for name, load_it in (("config.yaml", lambda: load(tmp_path)), ("actors.yaml", lambda: load_actors(tmp_path))):
        path = tmp_path / name
        size = 8 * path.stat().st_size
        for bit in {*range(120), *range(size - 8 * 90, size), *random_bits(path, 60)}:
            with flipped(path, bit), pytest.raises(UserError, match=name.replace(".", r"\.")):
                load_it()
    assert load(tmp_path).frames == 60


def load_actors(directory: Path) -> Any:
    return SavedRun(directory).actor_config("agents")


def test_a_configuration_that_was_changed_on_purpose_is_read_once_its_last_line_is_gone(tmp_path: Path) -> None:
    start(small_config(total_frames=60), tmp_path)
    path = tmp_path / "config.yaml"
    changed = path.read_text().replace("seed: 0", "seed: 5")
    path.write_text(changed)
    with pytest.raises(UserError, match="delete its last line if you changed it on purpose"):
        read_config(tmp_path)
    path.write_text("\n".join(changed.splitlines()[:-1]))
    assert read_config(tmp_path).seed == 5


GAME = """
import pathlib
from mpe2.simple_tag_v3 import *
pathlib.Path(MARK).touch()
"""


@pytest.fixture
def own_game(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of the user's own, in the folder of what this gives; importing it makes MARK there."""
    package = tmp_path / "my_games"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "tag_v0.py").write_text(GAME.replace("MARK", repr(str(tmp_path / "MARK"))))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("my_games", "my_games.tag_v0"):
        sys.modules.pop(name, None)


def test_a_users_own_code_is_run_from_a_run_directory_only_with_trust(
    own_game: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = PettingZooTask("tag", env="my_games/tag_v0", n_envs=2, n_workers=1, max_steps=5, groups_compete=True)
    run, mark = own_game / "run", own_game / "MARK"
    quick = {"frames_per_batch": 20, "total_frames": 20, "minibatch_frames": 10}
    start(small_config(task=task, **quick), run)  # whoever starts it names it
    assert mark.exists()
    record = yaml.safe_load((run / "code.yaml").read_text())["my_games/tag_v0"]
    assert record["path"] == str(own_game / "my_games")

    def forget() -> None:
        mark.unlink(missing_ok=True)
        for name in ("my_games", "my_games.tag_v0"):
            sys.modules.pop(name, None)

    opponent = RunOpponent(str(run))
    config = read_config(run)
    config.total_frames = 40
    sides = {"adversary": {"a": opponent}, "agent": {"b": RandomOpponent()}}
    ways = [
        lambda: load(run),
        lambda: resume(config, run),
        lambda: play(CrossPlayConfig(policies=sides, episodes=2, device="cpu")),
        lambda: evaluate([str(run), "episodes=2"]),
        lambda: watch([str(run), "episodes=2"]),
        lambda: export([str(run)]),
        lambda: list(examine_run(run)),
    ]
    for way in ways:
        forget()
        with pytest.raises(UserError, match=r"names code of its own, my_games/tag_v0 in .*my_games: .*trust=true"):
            way()
        assert not mark.exists()
    forget()
    (run / "code.yaml").unlink()  # who deletes the record is not trusted more
    with pytest.raises(UserError, match="names code of its own"):
        load(run)
    refused = call_here(own_game, "mappo", "resume=run", "total_frames=40")
    assert refused.returncode == 2
    assert not mark.exists()
    with caplog.at_level(logging.WARNING, "ctde_kit"):
        loaded = load(run, trust=True)
    assert mark.exists()
    assert "is not the code that the run was trained with" in caplog.text
    loaded.env.close()
    resumed = call_here(own_game, "mappo", "resume=run", "total_frames=40", "trust=true")
    assert resumed.returncode == 0, resumed.stderr
    evaluate([str(run), "episodes=2", "trust=true"])
    assert (run / "evaluation_1.json").exists()
    assert "check_policy: MultiAgentActor" in [str(report).splitlines()[0] for report in examine_run(run, trust=True)]


def test_a_run_directory_that_is_not_there_is_named_with_those_like_it(tmp_path: Path) -> None:
    for name in ("first", "other"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    hint = "there is no such directory; give the directory that a run printed (did you mean runs/first?)"
    commands = [("mappo", "resume=runs/frist"), ("mappo", "initial.agents=runs/frist"), ("evaluate", "runs/frist")]
    for command, argument in commands:
        shown = call_here(tmp_path, command, argument)
        assert shown.returncode == 2
        assert f"error: {argument}: {hint}\n" in shown.stderr
    with pytest.raises(UserError, match=r"run_directory='.*none': there is no such directory; give the directory"):
        load(tmp_path / "runs" / "none")
    empty = call_here(tmp_path, "mappo", "resume=runs/first").stderr
    assert "error: resume=runs/first: it is no run directory, it has no config.yaml; give the directory" in empty
