"""The rules of ends and masks, on toys whose every number is computed by hand."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import numpy as np
import pytest
from gymnasium import spaces
from torchrl.envs.utils import check_env_specs

from ctde_kit.envs.workers import WorkerEnv, WorkerError
from ctde_kit.errors import UserError
from tests.envs.toys import BOSSES, WALKERS, Make, ToyEnv, TurnEnv, flags, make_and_close, step, tags

pytestmark = pytest.mark.timeout(60)
make = pytest.fixture(name="make")(make_and_close)


# --- T1: time limits


@pytest.mark.parametrize("kwargs", [{"max_steps": 3}, {"limit": 3}], ids=["ours", "the environment's"])
def test_a_time_limit_truncates_and_never_terminates(make: Make, kwargs: dict[str, int]) -> None:
    limit = kwargs.pop("limit", None)
    env = make(partial(ToyEnv, limit=limit, ends={"walker_1": (2, "terminated")}), **kwargs)
    data = env.reset()
    for time_step in (1, 2):
        data = step(env, data)
        assert not data["done"].any()
        assert not data["truncated"].any(), time_step
    data = step(env, data)
    assert data["done"].all()
    assert data["truncated"].all()
    assert not data["terminated"].any()
    assert flags(data, "truncated") == [1, 0, 1, 1, 1]
    assert flags(data, "terminated") == [0, 1, 0, 0, 0]
    assert flags(data, "done") == [1, 1, 1, 1, 1]
    # Whoever the limit stopped is there in the last observation: its value is what the target is made of.
    assert flags(data, "mask") == [1, 0, 1, 1, 1]
    assert data["boss", "observation"][0, :, 1].tolist() == [33, 43]


def test_the_step_counter_starts_anew_with_each_episode(make: Make) -> None:
    env = make(ToyEnv, max_steps=3)
    done = env.rollout(10, break_when_any_done=False)["next", "done"]
    assert done[0].flatten().tolist() == [t % 3 == 2 for t in range(10)]


def test_the_last_agents_end_is_a_termination_even_at_the_limit(make: Make) -> None:
    env = make(partial(ToyEnv, ends=dict.fromkeys(WALKERS + BOSSES, (3, "both"))), max_steps=3)
    data = env.rollout(3, break_when_any_done=False)[:, -1]["next"]
    assert data["terminated"].all()
    assert not data["truncated"].any()


# --- T2: the observation before the reset


def test_next_observation_is_the_one_before_the_reset(make: Make) -> None:
    env = make(ToyEnv, max_steps=3)
    data = env.rollout(5, break_when_any_done=False)
    for index in range(4):
        first, second = tags(7, 0, index, 2)
        assert data["next", "boss", "observation"][index, 2, :, :2].tolist() == [[first, 33], [first, 43]]
        assert data["boss", "observation"][index, 3].tolist() == [[second, 30, -1, 0, 0, 0], [second, 40, -1, 0, 0, 0]]
        assert data["next", "state"][index, 2].tolist() == [first, 3]
        assert data["state"][index, 3].tolist() == [second, 0]


# --- T3: agents end one by one


def test_agents_end_one_by_one(make: Make) -> None:
    ends = {
        "walker_1": (2, "terminated"),
        "boss_0": (3, "truncated"),
        "walker_0": (4, "vanishes"),
        "walker_2": (5, "both"),
    }
    env = make(partial(ToyEnv, ends=ends, limit=6))
    data, seen = env.reset(), []
    for _ in range(6):
        data = step(env, data)
        seen.append(data)
    names = ("mask", "terminated", "truncated", "done")
    found = {name: [flags(data, name) for data in seen] for name in names}
    assert found["terminated"] == [[0, 0, 0, 0, 0], *[[0, 1, 0, 0, 0]] * 2, [1, 1, 0, 0, 0], *[[1, 1, 1, 0, 0]] * 2]
    assert found["truncated"] == [*[[0, 0, 0, 0, 0]] * 2, *[[0, 0, 0, 1, 0]] * 2, [0, 0, 1, 1, 0], [0, 0, 1, 1, 1]]
    assert found["done"] == [[0] * 5, [0, 1, 0, 0, 0], [0, 1, 0, 1, 0], [1, 1, 0, 1, 0], [1, 1, 1, 1, 0], [1] * 5]
    alive = [[1] * 5, [1, 0, 1, 1, 1], [1, 0, 1, 0, 1], [0, 0, 1, 0, 1], [0, 0, 0, 0, 1], [0, 0, 0, 0, 1]]
    assert found["mask"] == alive
    rewards = [[int(r) for group in ("walker", "boss") for r in data[group, "reward"][0].flatten()] for data in seen]
    assert rewards == [
        [100, 101, 102, 103, 104],
        [200, 201, 202, 203, 204],
        [300, 0, 302, 303, 304],
        [0, 0, 402, 0, 404],
        [0, 0, 502, 0, 504],
        [0, 0, 0, 0, 604],
    ]
    # The observation of the step an agent ends with is its own last one; afterwards there is none.
    assert [data["walker", "observation"][0, 1, 1].item() for data in seen] == [11, 12, 0, 0, 0, 0]
    assert not seen[2]["walker", "observation"][:, 1].any()
    assert [data["done"][0].item() for data in seen] == [False] * 5 + [True]
    assert seen[-1]["truncated"].all()
    assert not seen[-1]["terminated"].any()


def test_the_team_is_truncated_where_its_last_agents_end_in_both_ways(make: Make) -> None:
    ends = dict.fromkeys((*WALKERS, "boss_0"), (2, "terminated"))
    data = make(partial(ToyEnv, ends=ends | {"boss_1": (2, "truncated")})).rollout(4)[:, -1]["next"]
    assert data["done"].all()
    assert data["truncated"].all()
    assert not data["terminated"].any()
    assert flags(data, "mask") == [0, 0, 0, 0, 1]


class Chatty(ToyEnv):
    """Goes on to name, observe and reward whoever ended, as some environments do."""

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        out = super().reset(seed, options)
        self.living = self.agents
        return out

    def step(self, actions: dict[str, Any]) -> Any:
        self.agents = self.living
        out = super().step(actions)
        self.living, self.agents = self.agents, self.possible_agents
        for agent in self.possible_agents:
            news: tuple[Any, ...] = (self._observe(agent, 9), 9.0, False, False, {})
            for entries, value in zip(cast(Any, out), news, strict=True):
                entries.setdefault(agent, value)
        return out


def test_whoever_ended_stays_ended_whatever_the_environment_says(make: Make) -> None:
    env = make(partial(Chatty, ends={"walker_1": (1, "terminated")}))
    data = step(env, step(env, step(env, env.reset())))
    assert flags(data, "done") == flags(data, "terminated") == [0, 1, 0, 0, 0]
    assert flags(data, "mask") == [1, 0, 1, 1, 1]
    assert not data["walker", "reward"][:, 1].any()
    assert not data["walker", "observation"][:, 1].any()


def test_an_agent_may_come_later(make: Make) -> None:
    env = make(partial(ToyEnv, late=("boss_1", 2), limit=4))
    root = env.reset()
    assert flags(root, "mask") == [1, 1, 1, 1, 0]
    seen = [root]
    for _ in range(4):
        seen.append(step(env, seen[-1]))
    assert [flags(data, "mask")[-1] for data in seen] == [0, 0, 1, 1, 1]
    assert [flags(data, "done")[-1] for data in seen] == [0, 0, 0, 0, 1]
    assert [data["boss", "reward"][0, 1].item() for data in seen[1:]] == [0, 0, 304, 404]
    assert [data["boss", "observation"][0, 1, 1].item() for data in seen] == [0, 0, 42, 43, 44]


def test_an_episode_that_is_over_stays_as_it_is(make: Make) -> None:
    env = make(partial(ToyEnv, limit=2))
    last = step(env, step(env, env.reset()))
    again = step(env, last)
    assert not again["walker", "reward"].any()
    assert (
        again.exclude(("walker", "reward"), ("boss", "reward"))
        == last.exclude(("walker", "reward"), ("boss", "reward"))
    ).all()


# --- T5: masks


def test_action_masks(make: Make) -> None:
    env = make(partial(ToyEnv, masks=True, ends={"walker_1": (1, "terminated"), "boss_0": (2, "truncated")}, limit=3))
    root = env.reset()
    data = env.step(root.clone().update(env.full_action_spec.rand()))["next"].clone()
    assert root["walker", "action_mask"][0].int().tolist() == [[0, 1, 1, 1, 1], [1, 0, 1, 1, 1], [1, 1, 0, 1, 1]]
    assert root["boss", "action_mask"][0].int().argmin(-1).tolist() == [3, 4]
    assert data["walker", "action_mask"][0].int().tolist() == [[1, 0, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 0, 1]]
    # A masked action raises in the toy, so random actions obey the masks, across resets and deaths.
    rollout = env.rollout(30, break_when_any_done=False)
    for group in ("walker", "boss"):
        assert rollout[group, "action_mask"].gather(-1, rollout[group, "action"].unsqueeze(-1)).all()
        assert rollout[group, "action_mask"].any(-1).all()


class Helpless(ToyEnv):
    def _allowed(self, agent: str) -> np.ndarray:
        return super()._allowed(agent) * (self.time < 2)


def test_an_agent_that_may_do_nothing_is_an_error(make: Make) -> None:
    env = make(partial(Helpless, masks=True))
    with pytest.raises(WorkerError, match=r"failed in step of env [02]: ValueError: 'walker_0' is to act, but"):
        env.rollout(5)


class Boxed(Helpless):
    def action_space(self, agent: str) -> spaces.Space[Any]:
        return spaces.MultiBinary(2)


def test_action_spaces_that_do_not_fit_are_named(make: Make) -> None:
    with pytest.raises(UserError, match="action_space of 'walker_0': expected Discrete, MultiDiscrete or Box"):
        make(Boxed)


class WholeNumbers(ToyEnv):
    def action_space(self, agent: str) -> spaces.Space[Any]:
        return spaces.Box(0, 4, (2,), np.int64)


def test_a_box_of_whole_numbers_is_refused(make: Make) -> None:
    with pytest.raises(UserError, match=r"'walker_0': expected a Box of floats, found Box\(0, 4, .*MultiDiscrete"):
        make(WholeNumbers)


class LateMasks(ToyEnv):
    def _info(self, agent: str) -> dict[str, Any]:
        return {"action_mask": np.ones(7, np.int8)} if agent == "boss_1" and self.time == 2 else {}


def test_a_mask_that_first_appears_in_a_step_is_an_error(make: Make) -> None:
    with pytest.raises(WorkerError, match="ValueError: 'boss_1' has an action_mask in a step, but had none at the"):
        make(LateMasks).rollout(5)


class Returning(ToyEnv):
    def step(self, actions: dict[str, Any]) -> Any:
        result = super().step(actions)
        if self.time == 4:
            self.agents.append("walker_1")
        return result


@pytest.mark.parametrize("way", ["terminated", "truncated", "vanishes"])
def test_an_agent_that_comes_back_is_an_error(way: str, make: Make) -> None:
    env = make(partial(Returning, ends={"walker_1": (2, way)}))
    assert env.rollout(3).shape[-1] == 3
    with pytest.raises(WorkerError, match="ValueError: 'walker_1' came back after its end"):
        env.rollout(5)


# --- turns


def of_env(env: WorkerEnv, data: Any, name: str) -> list[Any]:
    """Entry ``name`` of every player of env 2."""
    values = [data[player, name][2, 0].int().tolist() for player in env.group_map]
    return [value[0] if name == "reward" else value for value in values]


def play(env: WorkerEnv, steps: int, on_turn: int = 1, waiting: int = 2) -> list[Any]:
    """The reset and each ``next``, where the players, in turn, do ``on_turn`` and whoever waits does ``waiting``."""
    seen = [env.reset()]
    for time in range(steps):
        data = seen[-1].copy().update(env.full_action_spec.zero())
        for index, player in enumerate(env.group_map):
            data[player, "action"] += on_turn if index == time % len(env.group_map) else waiting
        seen.append(env.step(data)["next"].clone())
    return seen


def test_whoever_waits_is_alive_observes_and_earns(make: Make) -> None:
    env = make(partial(TurnEnv, last=5))
    assert env.group_map == {"player_0": ["player_0"], "player_1": ["player_1"]}
    check_env_specs(env)
    seen = play(env, 5)
    assert [of_env(env, data, "mask") for data in seen] == [[1, 1]] * 5 + [[0, 0]]
    # The loser's -1 comes with its opponent's move, at a step at which it counts (the mask before it is True).
    assert [of_env(env, data, "reward") for data in seen[1:]] == [[1, -1], [0, 0]] * 2 + [[1, -1]]
    # Everyone sees every move, the last one too, and what whoever waited did (2) reached nobody.
    assert of_env(env, seen[0], "observation") == [[0, 0, -1], [0, 1, -1]]
    for time, data in enumerate(seen[1:], 1):
        assert of_env(env, data, "observation") == [[time, 0, 1], [time, 1, 1]]
    anything, nothing = [1, 1, 1], [1, 0, 0]
    turns = [[anything, nothing], [nothing, anything]]
    assert [of_env(env, data, "action_mask") for data in seen] == [*turns, *turns, turns[0], [anything] * 2]
    assert seen[-1]["terminated"].all()
    assert not seen[-1]["truncated"].any()
    done: Any = env.rollout(12, break_when_any_done=False)["next", "done"]
    assert done[2].flatten().nonzero().flatten().tolist() == [4, 9]


def test_a_player_that_is_out_is_dead_and_the_next_one_knows_its_moves(make: Make) -> None:
    """Player 2 goes out with player 0's second move; the game tells moves only to whom it has on turn."""
    env = make(partial(TurnEnv, last=6, players=3, masks=True, out={"player_2": 4}))
    seen = [env.reset()]
    for _ in range(6):
        seen.append(env.step(env.rand_action(seen[-1]))["next"].clone())
    assert [of_env(env, data, "mask") for data in seen] == [[1, 1, 1]] * 4 + [[1, 1, 0]] * 2 + [[0, 0, 0]]
    nobody = [0, 0, 0]
    wins = [[1, -1, -1], nobody, nobody, [1, -1, -1], nobody, [1, -1, 0]]
    assert [of_env(env, data, "reward") for data in seen[1:]] == wins
    nothing, anything = [1, 0, 0], [1, 1, 1]
    assert [of_env(env, data, "action_mask") for data in seen] == [
        [[0, 1, 1], nothing, nothing],
        [nothing, [1, 0, 1], nothing],
        [nothing, nothing, [1, 1, 0]],
        [[0, 1, 1], nothing, nothing],
        [nothing, [1, 0, 1], anything],
        [[1, 1, 0], nothing, anything],
        [anything] * 3,
    ]
    assert [of_env(env, data, "observation")[2][:2] for data in seen[3:6]] == [[3, 2], [4, 2], [0, 0]]
    # A masked action raises in the game, so random actions obey its masks.
    env.rollout(30, break_when_any_done=False)


@pytest.mark.parametrize("ours", [True, False], ids=["ours", "the game's"])
def test_whom_a_time_limit_stops_counts_on_turn_or_not(make: Make, ours: bool) -> None:
    env = make(partial(TurnEnv, last=9 if ours else 3, way="truncated"), max_steps=3 if ours else None)
    last = play(env, 3)[-1]
    assert last["truncated"].all()
    assert not last["terminated"].any()
    assert of_env(env, last, "mask") == [1, 1]
    assert of_env(env, last, "observation") == [[3, 0, 1], [3, 1, 1]]


def test_actions_of_several_parts_wait_too(make: Make) -> None:
    env = make(partial(TurnEnv, actions=spaces.MultiDiscrete([3, 2])))
    check_env_specs(env)
    first, second = play(env, 1, waiting=0)
    assert of_env(env, first, "action_mask") == [[1, 1, 1, 1, 1], [1, 0, 0, 1, 0]]
    assert of_env(env, second, "action_mask") == [[1, 0, 0, 1, 0], [1, 1, 1, 1, 1]]


def test_continuous_actions_in_turn_are_refused(make: Make) -> None:
    with pytest.raises(UserError, match="'player_0': expected Discrete or MultiDiscrete where agents act in turn"):
        make(partial(TurnEnv, actions=spaces.Box(-1, 1, (2,))))
