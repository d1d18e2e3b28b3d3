"""The rules of ends and masks, on toys whose every number is computed by hand."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import numpy as np
import pytest
from gymnasium import spaces

from ctde_kit.envs.worker_pool import WorkerError
from ctde_kit.errors import UserError
from tests.envs.toys import BOSSES, WALKERS, Make, ToyEnv, flags, make_and_close, step, tags

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
    with pytest.raises(WorkerError, match=r"failed in step of env 0: ValueError: 'walker_0' is to act, but"):
        env.rollout(5)


class Boxed(Helpless):
    def action_space(self, agent: str) -> spaces.Space[Any]:
        return spaces.MultiBinary(2)


def test_action_spaces_that_do_not_fit_are_named(make: Make) -> None:
    with pytest.raises(UserError, match="action_space of 'walker_0': expected Discrete, MultiDiscrete or Box"):
        make(Boxed)
