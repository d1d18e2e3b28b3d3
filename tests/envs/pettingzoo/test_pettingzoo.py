"""The worker env against TorchRL's own wrapper, key for key and value for value."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pettingzoo.utils.conversions import aec_to_parallel, parallel_to_aec, turn_based_aec_to_parallel
from pettingzoo.utils.wrappers import BaseWrapper
from tensordict import TensorDictBase
from torchrl.envs import RewardSum, TransformedEnv
from torchrl.envs.libs.pettingzoo import PettingZooWrapper
from torchrl.envs.utils import check_env_specs

from ctde_kit.envs.pettingzoo import AECAsParallel, as_parallel, own_package, pettingzoo_factory
from ctde_kit.envs.workers import WorkerEnv, env_seed, worker_env
from ctde_kit.errors import UserError
from tests.envs.toys import BOSSES, WALKERS, ToyEnv, TurnEnv

pytestmark = pytest.mark.timeout(60)
N_ENVS = 3
FLAGS = ("done", "terminated", "truncated")


def torchrls(env: Any, actions: TensorDictBase, seed: int, **kwargs: Any) -> Any:
    """What TorchRL's wrapper says to ``actions`` ``[T]``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapper: Any = PettingZooWrapper(env, use_mask=True, done_on_any=False, categorical_actions=True, **kwargs)
    data, stored = wrapper.reset(seed=seed), []
    for action in actions.unbind(0):
        stepped, data = wrapper.step_and_maybe_reset(data.update(action))
        stored.append(stepped.clone())
    data: Any = torch.stack(stored, 0).clone()
    for group in wrapper.group_map:
        for prefix in ((), ("next",)):
            # Of an observation with a mask TorchRL leaves a dictionary of one entry, and keeps every dtype.
            key = (*prefix, group, "observation")
            if isinstance(data[key], TensorDictBase):
                data[key] = data[key]["observation"]
            data[key] = data[key].float()
    return data


def rollout(factory: Callable[[], Any], steps: int, **kwargs: Any) -> tuple[WorkerEnv, Any]:
    env = worker_env(factory, n_envs=N_ENVS, n_workers=2, seed=5, **kwargs)
    check_env_specs(env)
    env.set_seed(5)
    torch.manual_seed(1)
    data = env.rollout(steps, break_when_any_done=False)
    env.close()
    return env, data


def without_last_masks(env: WorkerEnv, data: Any) -> Any:
    """``data`` without the masks of last observations, where the two differ on purpose."""
    data, last = data.clone(), data["next", "done"].squeeze(-1)
    for group in env.group_map:
        data["next", group, "mask"][last] = False
        if (group, "action_mask") in data.keys(True):
            data["next", group, "action_mask"][last] = True
    return data


def assert_same(found: Any, expected: Any) -> None:
    keys = set(found.keys(True, True))
    assert keys == set(expected.keys(True, True))
    for key in sorted(keys, key=str):
        assert found[key].shape == expected[key].shape, key
        assert torch.equal(found[key], expected[key].to(found[key].dtype)), key


@pytest.mark.parametrize(
    "factory",
    [
        pytest.param(pettingzoo_factory("mpe2/simple_spread_v3", N=3), marks=pytest.mark.slow),
        pettingzoo_factory("mpe2/simple_spread_v3", N=2, continuous_actions=True, terminate_on_success=True),
        pettingzoo_factory("mpe2/simple_tag_v3"),
        pytest.param(pettingzoo_factory("mpe2/simple_speaker_listener_v4"), marks=pytest.mark.slow),
        pettingzoo_factory("mpe2/simple_speaker_listener_v4", continuous_actions=True),
        partial(ToyEnv, masks=True, limit=4),
        partial(ToyEnv, continuous=True, limit=4),
    ],
    ids=["spread", "spread, continuous", "tag", "speaker", "speaker, continuous", "toy", "toy, continuous"],
)
def test_it_is_torchrls_wrapper(factory: Callable[[], Any]) -> None:
    env, data = rollout(factory, 60)
    assert data["next", "truncated"].any()
    actions = data.select(*env.action_keys)
    for index in range(N_ENVS):
        expected = torchrls(factory(), actions[index], env_seed(5, 0, index), return_state=True)
        assert_same(without_last_masks(env, data[index]), without_last_masks(env, expected))


def test_groups_of_simple_tag() -> None:
    env, data = rollout(pettingzoo_factory("mpe2/simple_tag_v3", num_good=2, num_adversaries=4), 2)
    assert env.group_map == {
        "adversary": [f"adversary_{index}" for index in range(4)],
        "agent": ["agent_0", "agent_1"],
    }
    assert data["adversary", "observation"].shape[2:] != data["agent", "observation"].shape[2:]


def test_where_dying_agents_differ_from_torchrls() -> None:
    """Values are the same but for flags of the dead (TorchRL: both), and what follows from them."""
    ends = {"walker_1": (2, "terminated"), "boss_0": (3, "truncated")}
    env, data = rollout(partial(ToyEnv, masks=True, limit=5, ends=ends), 13)
    toy = ToyEnv(masks=True, limit=5, ends=ends, strict=False)
    expected = torchrls(toy, data.select(*env.action_keys)[0], env_seed(5, 0, 0), return_state=True)
    found = data[0].clone()
    for time in range(13):
        dead = [("walker", 1, 2, "truncated"), ("boss", 0, 3, "terminated")]
        for group, position, end, wrong in dead:
            for prefix, at in (((), time % 5), (("next",), time % 5 + 1)):
                assert found[(*prefix, group, wrong)][time, position].item() is False
                assert expected[(*prefix, group, wrong)][time, position].item() is (at > end)
                expected[(*prefix, group, wrong)][time, position] = False
    assert_same(without_last_masks(env, found), without_last_masks(env, expected))
    # At the time limit: whoever it stopped counts in the last observation.
    assert found["next", "walker", "mask"][4].tolist() == [True, False, True]
    assert found["next", "boss", "mask"][4].tolist() == [False, True]
    assert not expected["next", "walker", "mask"][4].any()


def test_where_mixed_ends_differ_from_torchrls() -> None:
    """TorchRL's root says neither terminated nor truncated where agents end in both ways at once."""
    ends = dict.fromkeys((*WALKERS, *BOSSES), (1, "terminated")) | {"boss_1": (1, "truncated")}
    env, data = rollout(partial(ToyEnv, ends=ends), 1)
    expected = torchrls(ToyEnv(ends=ends), data.select(*env.action_keys)[0], env_seed(5, 0, 0))
    assert [expected["next", name].item() for name in FLAGS] == [True, False, False]
    assert [data["next", name][0].item() for name in FLAGS] == [True, False, True]


def waiting(data: Any, index: int) -> Any:
    """Where player ``index`` of two waits ``[n_envs, T]``, by the moves since the last reset."""
    moves, found = torch.zeros(len(data), dtype=torch.int64), []
    for done in data["next", "done"].squeeze(-1).unbind(1):
        found.append(moves % 2 != index)
        moves = (moves + 1).masked_fill(done, 0)
    return torch.stack(found, 1)


@pytest.mark.parametrize("name", ["classic/tictactoe_v3", "classic/connect_four_v3"])
def test_turn_based_games(name: str) -> None:
    """TorchRL's wrapper but for whoever waits: it is alive, and may do action 0 alone."""
    factory = pettingzoo_factory(name)
    env, data = rollout(factory, 60)
    for position, group in enumerate(env.group_map):
        waits = waiting(data, position)
        assert data[group, "mask"].all()
        assert not data[group, "action_mask"][..., 1:][waits].any()
        assert data[group, "action_mask"][..., 0][waits].all()
    for index in range(N_ENVS):
        expected = torchrls(factory(), data.select(*env.action_keys)[index], env_seed(5, 0, index))
        for group in env.group_map:
            for prefix in ((), ("next",)):
                waits = ~expected[(*prefix, group, "mask")] & ~expected[(*prefix, "done")]
                expected[(*prefix, group, "mask")] |= waits
                allowed: Any = expected[(*prefix, group, "action_mask")]
                allowed[waits] = torch.arange(allowed.shape[-1]) == 0
        assert_same(without_last_masks(env, data[index]), without_last_masks(env, expected))


@pytest.mark.parametrize("name", ["classic/tictactoe_v3", "classic/connect_four_v3"])
def test_returns_of_games_are_zero_sum_under_the_masks(name: str) -> None:
    env, data = rollout(pettingzoo_factory(name), 90)
    first, second = ((data["next", group, "reward"] * data[group, "mask"].unsqueeze(-1)) for group in env.group_map)
    ends, returns = data["next", "done"].squeeze(-1), []
    for index in range(N_ENVS):
        start = 0
        for end in (ends[index].nonzero().flatten() + 1).tolist():
            returns.append([reward[index, start:end].sum().item() for reward in (first, second)])
            start = end
    assert len(returns) >= 2 * N_ENVS
    # Legal actions only: an illegal one would end the game with -1 against 0.
    assert all(pair in ([1, -1], [-1, 1], [0, 0]) for pair in returns)
    assert [1, -1] in returns
    assert [-1, 1] in returns


def test_parallel_views_of_aec_environments() -> None:
    toy = ToyEnv()
    assert as_parallel(toy) is toy
    assert as_parallel(parallel_to_aec(toy)) is toy
    aec = pettingzoo_factory("mpe2/simple_spread_v3")().aec_env
    for env in (aec, aec_to_parallel(aec)):
        view: Any = as_parallel(env)
        assert isinstance(view, AECAsParallel)
        assert not view.turn_based
    turns: Any = as_parallel(turn_based_aec_to_parallel(TurnEnv()))
    assert isinstance(turns, AECAsParallel)
    assert turns.turn_based
    drawn: Any = as_parallel(pettingzoo_factory("mpe2/simple_spread_v3", render_mode="rgb_array")())
    drawn.reset(seed=0)
    assert drawn.render().shape == (700, 700, 3)
    drawn.close()


@pytest.mark.parametrize("name", ["simple_spread_v3", "simple_tag_v3", "simple_world_comm_v3", "simple_crypto_v3"])
def test_mpes_state_is_read_from_what_was_observed(name: str) -> None:
    env: Any = as_parallel(pettingzoo_factory(f"mpe2/{name}", max_cycles=4)())
    scenario, seen = env.unwrapped.scenario, []
    env.reset(seed=0)
    for _ in range(4):
        env.step({agent: env.action_space(agent).sample() for agent in env.agents})
        expected, observe = env.unwrapped.state(), scenario.observation
        scenario.observation = lambda *args, observe=observe: (seen.append(args), observe(*args))[1]
        assert np.array_equal(env.state(), expected)
        assert env.state().dtype == expected.dtype
        scenario.observation = observe
    assert not env.agents, "the last step has a state, too"
    assert not seen


class Doubled(BaseWrapper):
    """Shows twice what there is."""

    def observe(self, agent: str) -> Any:
        return 2 * super().observe(agent)


def test_a_wrapper_of_observations_leaves_the_state_alone() -> None:
    env: Any = as_parallel(Doubled(pettingzoo_factory("mpe2/simple_spread_v3")().aec_env))
    env.reset(seed=0)
    assert np.array_equal(env.state(), env.unwrapped.state())


def test_a_cycle_of_a_parallelizable_environment_is_one_step() -> None:
    aec = TurnEnv(last=5)
    aec.metadata["is_parallelizable"] = True
    env = AECAsParallel(aec)
    env.reset()
    observations, rewards, _, _, _ = env.step(dict.fromkeys(env.agents, 0))
    assert rewards == {"player_0": 1, "player_1": -1}
    assert observations["player_0"].tolist() == [2, 0, 0]


def test_an_agent_that_ends_within_a_cycle_is_an_error() -> None:
    aec = TurnEnv(last=3)
    aec.metadata["is_parallelizable"] = True
    env = AECAsParallel(aec)
    env.reset()
    env.step(dict.fromkeys(env.agents, 0))
    with pytest.raises(RuntimeError, match="expected the turn of 'player_1', found that of 'player_0'"):
        env.step(dict.fromkeys(env.agents, 0))


def test_multiwalker() -> None:
    pytest.importorskip("Box2D")
    factory = pettingzoo_factory("sisl/multiwalker_v9", terminate_on_fall=False, remove_on_fall=True)
    # Its own state() fails once a fallen walker was removed.
    env, data = rollout(factory, 120, return_state=False)
    assert env.group_map == {"walker": [f"walker_{index}" for index in range(3)]}
    dead = ~data["walker", "mask"]
    assert dead.any()
    assert not dead.all(-1).any()
    assert not data["next", "walker", "reward"][dead].any()
    assert data["next", "walker", "terminated"][dead].all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mpe2/simple_spread_v2", "unknown module 'simple_spread_v2'; did you mean simple_spread_v3"),
        ("mpe2/nothing", "unknown module 'nothing'; expected one of .*simple_v3"),
        ("mpe/simple_spread_v3", "unknown family 'mpe'; did you mean mpe2"),
        ("simple_spread_v3", "unknown family 'simple_spread_v3'; expected one of atari, butterfly"),
        ("os/path", "unknown family 'os'"),
        ("sisl/multiwalker_v8", "did you mean multiwalker_v9"),
    ],
)
def test_unknown_names(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        pettingzoo_factory(name)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("gymnasium_robotics/mamujoco_v1", 'gymnasium_robotics\'; pip install "ctde-kit\\[mamujoco\\]"$'),
        ("magent2/battle_v4", "magent2'; pip install magent2$"),
    ],
)
def test_a_family_whose_package_is_missing(name: str, advice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    with pytest.raises(UserError, match=f"needs the package '{advice}"):
        pettingzoo_factory(name)


def test_unknown_arguments() -> None:
    factory = pettingzoo_factory("mpe2/simple_spread_v3", max_cycle=3)
    with pytest.raises(UserError, match="simple_spread_v3: unknown argument 'max_cycle'; did you mean max_cycles"):
        worker_env(factory, n_envs=2, n_workers=1)


def test_missing_dependencies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "Box2D", None)
    for name in [name for name in sys.modules if name.startswith("pettingzoo.sisl.multiwalker")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(UserError, match=r'multiwalker_v9.: needs the package .*; pip install "pettingzoo\[sisl\]"'):
        pettingzoo_factory("sisl/multiwalker_v9")


def test_it_is_a_torchrl_environment() -> None:
    """Transforms and rewards over groups work as on any other."""
    base = worker_env(pettingzoo_factory("mpe2/simple_tag_v3"), n_envs=2, n_workers=1, seed=0, max_steps=4)
    keys = [("adversary", "reward"), ("agent", "reward")]
    env = TransformedEnv(base, RewardSum(in_keys=keys, reset_keys=["_reset"] * 2))
    data = env.rollout(9, break_when_any_done=False)
    summed: Any = data["next", "adversary", "episode_reward"][:, 3]
    assert torch.allclose(summed, data["next", "adversary", "reward"][:, :4].sum(1))
    base.close()


@pytest.mark.parametrize("name", ["arena/duel_v2", "arena.environments/duel_v2"])
def test_modules_in_the_packages_of_a_package_are_found(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``magent2.environments`` and ``gymnasium_robotics.envs.multiagent_mujoco`` have them; nothing else is run."""
    inside = tmp_path / "arena" / "environments"
    inside.mkdir(parents=True)
    (tmp_path / "arena" / "__init__.py").write_text("")
    (tmp_path / "arena" / "other").mkdir()
    (tmp_path / "arena" / "other" / "__init__.py").write_text("raise AssertionError\n")
    (inside / "__init__.py").write_text("")
    (inside / "duel_v2.py").write_text("from mpe2.simple_spread_v3 import env, parallel_env, raw_env\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        assert own_package(name) == tmp_path / "arena"
        assert pettingzoo_factory(name, N=2)().possible_agents == ["agent_0", "agent_1"]
        with pytest.raises(UserError, match="unknown module 'duel_v1'; did you mean duel_v2"):
            pettingzoo_factory("arena/duel_v1")
    finally:
        for module in [module for module in sys.modules if module.partition(".")[0] == "arena"]:
            del sys.modules[module]


def test_rock_paper_scissors_keeps_its_state_for_itself() -> None:
    env = worker_env(pettingzoo_factory("classic/rps_v2"), n_envs=2, n_workers=1)
    assert "state" not in env.reset().keys()  # noqa: SIM118
    env.close()


def test_a_warehouse() -> None:
    pytest.importorskip("rware", reason='pip install "ctde-kit[rware]"')
    env = worker_env(pettingzoo_factory("rware/rware-tiny-2ag-v2"), n_envs=2, n_workers=1, max_steps=7, seed=0)
    data = env.rollout(7)
    assert data["agents", "observation"].shape == (2, 7, 2, 71)
    assert torch.equal(data["state"], data["agents", "observation"].flatten(-2))
    assert data["next", "truncated"][:, -1].all()
    assert not data["next", "terminated"].any()
    env.close()
    with pytest.raises(UserError, match="did you mean rware-tiny-2ag"):
        pettingzoo_factory("rware/rware-tiny-2ag-v1")()


@pytest.mark.parametrize(
    ("family", "package"), [("rware/rware-tiny-2ag-v2", "rware"), ("openspiel/tic_tac_toe", "openspiel")]
)
def test_a_suite_that_is_missing_names_its_extra(family: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("rware", "pyspiel", "shimmy.openspiel_compatibility"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf'pip install "ctde-kit\[{package}\]"'):
        pettingzoo_factory(family)()
    assert own_package(family) is None


def test_a_game_of_openspiel() -> None:
    pytest.importorskip("pyspiel", reason='pip install "ctde-kit[openspiel]"')
    env = worker_env(pettingzoo_factory("openspiel/tic_tac_toe"), n_envs=2, n_workers=1, flatten=True, seed=0)
    assert env.reset()["player_0", "action_mask"].all()
    data = env.rollout(40, break_when_any_done=False)
    assert data["next", "player_0", "reward"].abs().max() == 1
    env.close()
