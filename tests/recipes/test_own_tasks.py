"""A user's own environments: from the command line, found without being run, and run again only with trust."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctde_kit.errors import UserError
from ctde_kit.recipes import (
    EpisodeForm,
    HeuristicOpponent,
    PettingZooTask,
    QMIXConfig,
    ReplayConfig,
    RunOpponent,
    VmasTask,
    load,
    named_task,
)
from ctde_kit.recipes.commands.compare import read_options
from ctde_kit.recipes.commands.cross_play import _common_task
from ctde_kit.recipes.commands.own_tasks import run_task
from ctde_kit.recipes.commands.running import start
from ctde_kit.recipes.configs.command_options import CrossPlayConfig
from ctde_kit.recipes.configs.data import read_data, to_data, write_data
from ctde_kit.recipes.studies.report.settings import read_by_settings
from ctde_kit.specs import TeamSpec
from tests.recipes.command_line import call_here
from tests.recipes.small import small_config

SCENARIO = """
import torch
from vmas.simulator.core import Agent, Sphere, World
from vmas.simulator.scenario import BaseScenario

from speeds import SPEED


class Scenario(BaseScenario):
    def make_world(self, batch_dim, device, **kwargs):
        world = World(batch_dim, device)
        for index in range(kwargs.pop("n_agents", 2)):
            world.add_agent(Agent(f"agent_{index}", shape=Sphere(0.1), max_speed=SPEED))
        return world

    def reset_world_at(self, env_index=None):
        for agent in self.world.agents:
            agent.set_pos(torch.zeros(2, device=self.world.device), env_index)

    def observation(self, agent):
        return torch.cat([agent.state.pos, agent.state.vel], -1)

    def reward(self, agent):
        return -agent.state.pos.norm(dim=-1)


def faster():
    return Scenario()


nothing = 3
"""
GAME = '''
import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv


class Echo(ParallelEnv):
    """Both are paid for action 1."""

    metadata = {"name": "echo"}

    def __init__(self, features):
        self.features, self.possible_agents = features, ["player_0", "player_1"]

    def observation_space(self, agent):
        return spaces.Box(-9, 9, (self.features,), np.float32)

    def action_space(self, agent):
        return spaces.Discrete(3)

    def reset(self, seed=None, options=None):
        self.agents = [*self.possible_agents]
        observations = {agent: np.zeros(self.features, np.float32) for agent in self.agents}
        return observations, {agent: {} for agent in self.agents}

    def step(self, actions):
        observations = {agent: np.ones(self.features, np.float32) for agent in self.agents}
        no = {agent: False for agent in self.agents}
        rewards = {agent: float(actions[agent] == 1) for agent in self.agents}
        return observations, rewards, no, no, {agent: {} for agent in self.agents}


def echo(features=4):
    return Echo(features)
'''
ENVS = """
from torchrl.envs import PettingZooWrapper, VmasEnv


def batched(n_envs, device, n_agents=2):
    return VmasEnv("simple_spread", num_envs=n_envs, device=device, n_agents=n_agents)


def single(features=4):
    from game import echo

    return PettingZooWrapper(echo(features), use_mask=True, categorical_actions=True, done_on_any=False)


def whole_numbers(n_envs):
    # A grid of whole numbers, and a force without a feature dimension.
    import torch
    from torchrl.data import Bounded
    from torchrl.envs import Transform, TransformedEnv

    class Grid(Transform):
        def _call(self, next_tensordict):
            seen = next_tensordict["agents", "observation"][..., :6]
            return next_tensordict.set(("agents", "observation"), seen.unflatten(-1, (2, 3)).long())

        _reset = lambda self, tensordict, tensordict_reset: self._call(tensordict_reset)

        def _inv_call(self, tensordict):
            return tensordict.set(("agents", "action"), tensordict["agents", "action"].unsqueeze(-1).expand(-1, -1, 2))

        def transform_observation_spec(self, spec):
            spec["agents", "observation"] = Bounded(-9, 9, (*spec.shape, 2, 2, 3), dtype=torch.int64)
            return spec

        def transform_input_spec(self, spec):
            spec["full_action_spec", "agents", "action"] = Bounded(-1.0, 1.0, (n_envs, 2))
            return spec

    return TransformedEnv(VmasEnv("simple_spread", num_envs=n_envs, n_agents=2), Grid())


def with_a_goal(n_envs):
    from torchrl.envs import CatTensors, TransformedEnv

    env = TransformedEnv(VmasEnv("simple_spread", num_envs=n_envs, n_agents=2))
    return env.append_transform(CatTensors([("agents", "observation")], ("agents", "goal"), del_keys=False))


def two_groups(n_envs):
    return VmasEnv("simple_tag", num_envs=n_envs)


def failing(n_envs, n_agents=2):
    return VmasEnv("simple_spread", num_envs=n_envs, n_agents=2, **{"no_such": open("/no/such/file")})


def too_wide(n_envs):
    return VmasEnv("simple_spread", num_envs=n_envs + 1)


def nothing():
    return None
"""
QUICK = ("task.n_envs=4", "total_frames=40", "frames_per_batch=40", "evaluation.episodes=2", "hydra.run.dir=run")
SMALL = (*QUICK, "task.max_steps=5", "minibatch_frames=20", "compile=off")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Path]:
    """A folder with code of a user's own."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.py").write_text(SCENARIO)
    (tmp_path / "own" / "speeds.py").write_text("SPEED = 0.5\n")
    (tmp_path / "own" / "game.py").write_text(GAME)
    (tmp_path / "own" / "own_envs.py").write_text(ENVS)
    yield tmp_path / "own"
    for name in ("speeds", "own_envs", "game"):
        sys.modules.pop(name, None)
    sys.path[:] = [folder for folder in sys.path if folder != str(tmp_path / "own")]


@pytest.mark.parametrize(
    ("task", "argument", "group", "sizes"),
    [
        pytest.param("vmas/mine.py:Scenario", "n_agents=3", "agents", (3, 4), marks=pytest.mark.slow),
        ("vmas/mine.py:faster", "n_agents=3", "agents", (3, 4)),
        ("pettingzoo/game.py:echo", "features=6", "player", (2, 6)),
        ("torchrl/own_envs:batched", "n_agents=3", "agents", (3, 14)),
        pytest.param("torchrl/own_envs:single", "features=6", "player", (2, 6), marks=pytest.mark.slow),
        ("torchrl/own_envs:whole_numbers", "", "agents", (2, 6)),
    ],
)
def test_each_family_trains_from_the_command_line(
    task: str, argument: str, group: str, sizes: tuple[int, int], own: Path
) -> None:
    workers = ("task.n_workers=1",) if task.startswith("pettingzoo") else ()
    arguments = (f"task.params.{argument}",) if argument else ()
    ended = call_here(own, "mappo", f"task={task}", *arguments, *workers, *SMALL)
    assert ended.returncode == 0, ended.stderr
    name = task.replace(".py", "").replace(":Scenario", "").replace(":", ".")
    assert f"mappo on {name}, seed 0" in ended.stdout
    with pytest.raises(UserError, match=r"names code of its own, .*trust=true"):
        load(own / "run")
    loaded = load(own / "run", trust=True)
    spec = TeamSpec.from_env(loaded.env)[group]
    assert (spec.n_agents, spec.observation_dim) == sizes
    loaded.env.close()


def test_a_checkpoint_resets_an_environment_whose_state_is_not_known(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(own)
    config = small_config(task=named_task("torchrl/own_envs:batched", n_envs=6, max_steps=7))
    first, second = config.build().collector, config.build().collector
    next(iter(first))
    second.load_state_dict(first.state_dict())
    for collector in (first, second):
        assert next(iter(collector))["is_init"][:, 0].all()


def test_a_run_goes_on_from_another_directory(own: Path, tmp_path: Path) -> None:
    assert call_here(own, "mappo", "task=vmas/mine.py:Scenario", *SMALL).returncode == 0
    refused = call_here(tmp_path, "mappo", "resume=own/run", "total_frames=80")
    assert refused.returncode == 2
    assert f"names code of its own, {own / 'mine.py'}:Scenario: look at it" in refused.stderr
    resumed = call_here(tmp_path, "mappo", "resume=own/run", "total_frames=80", "trust=true")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads((own / "run" / "summary.json").read_text())["frames"] == 80


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("vmas/there.py:Scenario", "there is no file"),
        ("vmas/mine.py:Other", "has no 'Other'; name something that it has"),
        ("vmas/mine.py:nothing", "expected a name, or a class or object of VMAS's BaseScenario, found 3"),
        ("vmas/mine.py:torch", "expected a name, or a class or object of VMAS's BaseScenario, found <module 'torch'"),
        ("vmas/there:Scenario", "there is no module there, neither in"),
        ("vmas/mine.py:two words", "expected MODULE:NAME or FILE.py:NAME"),
        ("other/mine.py:Scenario", "expected vmas/, pettingzoo/ or torchrl/ before your own code, found other/"),
        ("own/vmas", "name your own code, task=vmas/FILE.py:NAME"),
        ("torchrl/own_envs.py:nothing", "expected a function that builds a TorchRL EnvBase, found"),
        ("torchrl/own_envs.py:too_wide", "expected an environment of the batch [4], found [5]"),
        ("torchrl/own_envs.py:with_a_goal", "writes ('agents', 'goal'), which no network reads; make it part of"),
        (
            "torchrl/own_envs.py:two_groups",
            "task.groups_compete: torchrl/own_envs.two_groups has the groups adversary, agent; say true",
        ),
        ("torchrl/own_envs.py:failing", "own_envs.py, line 54, and at what the environment needs"),
        ("torchrl/own_envs.py:failing task.params.n_agents=3", "own_envs.py, line 54, and at what the environment"),
        ("torchrl/own_envs.py:failing task.params.n=3", "does not build with task.params.n=3 (TypeError: "),
        ("vmas/mine.py:Scenario task.params={}", "task.params={}: expected arguments, task.params.NAME=VALUE: those"),
    ],
)
def test_what_is_wrong_is_one_line_before_there_is_a_run(task: str, message: str, own: Path) -> None:
    name, *options = task.rsplit(" ", 1) if " task." in task else [task]
    ended = call_here(own, "mappo", f"task={name}", *options, *SMALL)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert not (own / "run").exists()


def test_code_that_fails_says_where(own: Path) -> None:
    (own / "mine.py").write_text("import torch\nraise LookupError('no map')\n")
    ended = call_here(own, "mappo", "task=vmas/mine.py:Scenario", *SMALL)
    assert ended.returncode == 2
    assert f"(LookupError: no map; in {own / 'mine.py'}, line 2)" in ended.stderr


def test_a_file_that_was_changed_is_read_anew(own: Path) -> None:
    task = named_task(f"vmas/{own / 'mine.py'}:Scenario", n_envs=2, max_steps=5)
    assert isinstance(task, VmasTask)
    assert (task.name, task.scenario) == ("vmas/mine", f"{own / 'mine.py'}:Scenario")
    assert task.build(seed=0, device="cpu").reset()["agents", "observation"].shape == (2, 2, 4)
    (own / "mine.py").write_text(SCENARIO.replace("[agent.state.pos, agent.state.vel]", "[agent.state.pos]"))
    assert task.build(seed=0, device="cpu").reset()["agents", "observation"].shape == (2, 2, 2)


def test_code_is_known_by_its_content_and_not_by_where_it_lies(own: Path, tmp_path: Path) -> None:
    def config(folder: Path, **options: Any) -> Any:
        task = named_task(f"vmas/{folder / 'mine.py'}:Scenario", n_envs=6, max_steps=7)
        return small_config(task=task, total_frames=60, **options)

    start(config(own), tmp_path / "first")
    (tmp_path / "moved").mkdir()
    (own / "mine.py").rename(tmp_path / "moved" / "mine.py")
    start(config(tmp_path / "moved", seed=1, initial={"agents": str(tmp_path / "first")}), tmp_path / "second")
    (own / "mine.py").write_text(SCENARIO.replace("Sphere(0.1)", "Sphere(0.2)"))
    changed = r"Scenario \(code of SHA-256 \w+\)"
    with pytest.raises(UserError, match=f"is a run of {changed}, this is {changed}; give a run of the same task"):
        config(own, initial={"agents": str(tmp_path / "first")}).build()
    start(config(own, seed=2), tmp_path / "third")

    def played(*names: str) -> Any:
        policies = {name: RunOpponent(str(tmp_path / name)) for name in names}
        return _common_task(CrossPlayConfig(policies={"agents": policies}, trust=True))

    runs = [tmp_path / name for name in ("first", "second", "third")]
    assert played("first", "second").name == "vmas/mine"
    assert [curve.label for curve in read_by_settings(runs[:2], read_options).curves] == [
        "mappo",
        f"mappo initial.agents={runs[0]}",
    ]
    with pytest.raises(UserError, match=f"has task.name={changed}, .* has {changed}; give the task to be played"):
        played("first", "third")
    with pytest.raises(UserError, match=f"is a run with task.scenario={changed}, .* with {changed}; compare runs of"):
        read_by_settings(runs, read_options)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("pettingzoo/sisl/pursuit_v5", "env", "sisl/pursuit_v5"),
        ("pettingzoo/magent2.environments/battle_v4", "env", "magent2.environments/battle_v4"),
        ("pettingzoo/openspiel/tic_tac_toe", "env", "openspiel/tic_tac_toe"),
        ("lbf/Foraging-5x5-2p-1f-v3", "env_id", "Foraging-5x5-2p-1f-v3"),
    ],
)
def test_an_environment_of_a_package_needs_no_file_of_options(name: str, option: str, value: str) -> None:
    task = named_task(name, n_envs=3)
    assert (task.name, getattr(task, option), task.n_envs) == (name, value, 3)


def test_what_a_file_derives_from_an_option_follows_it() -> None:
    task = named_task("pettingzoo/simple_spread", max_steps=100, params={"N": 2})
    assert isinstance(task, PettingZooTask)
    assert (task.max_steps, task.params["max_cycles"], task.params["N"]) == (100, 100, 2)
    assert vars(named_task("pettingzoo/simple_spread", params={"max_cycles": 7}))["params"]["max_cycles"] == 7
    with pytest.raises(UserError, match=r"^n_envs: Value 'many' of type 'str' could not be converted to Integer$"):
        named_task("vmas/navigation", n_envs="many")


def test_names_of_tasks_are_still_suggested() -> None:
    with pytest.raises(UserError, match=r"did you mean .*pettingzoo/simple_spread"):
        named_task("pettingzoo/simple_spreed")


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    counted: Any = np.int64(30)
    params = {"n_agents": np.int64(2), "shared_rew": np.bool_(True), "lidar_range": np.float32(0.5)}
    task = named_task("vmas/navigation", n_envs=counted, params=params)
    write_data(to_data(task), tmp_path / "task.yaml")
    plain = named_task("vmas/navigation", n_envs=30, params={"n_agents": 2, "shared_rew": True, "lidar_range": 0.5})
    assert read_data(tmp_path / "task.yaml") == to_data(plain)
    assert named_task("vmas/navigation", name="vmas/mine").name == "vmas/mine"


def test_an_own_game_ends_where_it_ends(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own)
    task = named_task("pettingzoo/game.py:echo", n_envs=2, n_workers=1)
    assert task.episode_steps is None
    with pytest.raises(UserError, match=r"replay\.form\.max_steps: how long this task's episodes can be is not known"):
        QMIXConfig(task=task, replay=ReplayConfig(form=EpisodeForm())).build()
    replay = ReplayConfig(form=EpisodeForm(max_steps=40))
    assert QMIXConfig(task=task, replay=replay, frames_per_batch=80).build().buffer is not None


def test_a_file_that_python_names_is_found_from_anywhere(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own)
    named = [VmasTask(name="vmas/mine", scenario="mine.py:Scenario"), PettingZooTask(env="game.py:echo")]
    assert [vars(task).get("scenario") or vars(task)["env"] for task in named] == [
        f"{own / 'mine.py'}:Scenario",
        f"{own / 'game.py'}:echo",
    ]


def test_an_own_scenario_has_no_scripted_policy(own: Path) -> None:
    task = VmasTask(name="vmas/mine", scenario=f"{own / 'mine.py'}:Scenario")
    with pytest.raises(UserError, match=r"heuristic: vmas/mine is a scenario of your own and has no scripted policy"):
        HeuristicOpponent().for_task(task)


def test_bounds_of_a_benchmark_are_those_of_its_runs() -> None:
    assert [run_task(name) for name in ("vmas/tag.py:Scenario", "pettingzoo/games.tag:make", "vmas/navigation")] == [
        "vmas/tag",
        "pettingzoo/tag.make",
        "vmas/navigation",
    ]
