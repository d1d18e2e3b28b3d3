"""The worker env's own rules, on toys whose every number is computed by hand."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tensordict import TensorDict, TensorDictBase
from torchrl.envs.utils import check_env_specs
from toys import BOSSES, WALKERS, ToyEnv, TurnEnv

from ctde_kit.envs.worker_layout import group_by_name
from ctde_kit.envs.worker_pool import WorkerError
from ctde_kit.envs.workers import WorkerEnv, env_seed, worker_env
from ctde_kit.errors import UserError

pytestmark = pytest.mark.timeout(60)
Make = Callable[..., WorkerEnv]


@pytest.fixture
def make() -> Iterator[Make]:
    """``worker_env`` with 4 envs in 2 processes, closed at the end."""
    made: list[WorkerEnv] = []

    def build(factory: Callable[[], Any], **kwargs: Any) -> WorkerEnv:
        made.append(worker_env(factory, **({"n_envs": 4, "n_workers": 2, "seed": 7} | kwargs)))
        return made[-1]

    yield build
    for env in made:
        env.close()
    assert not multiprocessing.active_children()


def actions(env: WorkerEnv, walker: int = 1, boss: int = 2) -> TensorDict:
    """Every walker does ``walker``, every boss ``boss``."""
    data = env.full_action_spec.zero()
    data["walker", "action"] += walker
    data["boss", "action"] += boss
    return data


def step(env: WorkerEnv, data: TensorDictBase, **kwargs: int) -> TensorDictBase:
    """The ``next`` of one step."""
    return env.step(data.copy().update(actions(env, **kwargs)))["next"].clone()


def tags(seed: int, epoch: int, index: int, n: int) -> list[int]:
    """The tags of an env's first ``n`` episodes."""
    rng = np.random.default_rng(env_seed(seed, epoch, index))
    return [int(rng.integers(1, 10_000)) for _ in range(n)]


def flags(data: TensorDictBase, name: str) -> list[int]:
    """A flag of the five agents of env 0."""
    return [int(flag) for group in ("walker", "boss") for flag in data[group, name][0].flatten()]


# --- shapes, keys, specs


def test_specs_and_every_shape(make: Make) -> None:
    env = make(partial(ToyEnv, masks=True, limit=4))
    check_env_specs(env, break_when_any_done="both")
    data = env.rollout(6, break_when_any_done=False)
    shapes = {key: tuple(data[key].shape[2:]) for key in data.keys(True, True)}
    flag = dict.fromkeys(("done", "terminated", "truncated"), (1,))
    seen: dict[Any, tuple[int, ...]] = {"state": (2,), **flag}
    for group, n, features, choices in (("walker", 3, 4, 5), ("boss", 2, 3, 7)):
        seen |= {(group, "observation"): (n, features), (group, "mask"): (n,), (group, "action_mask"): (n, choices)}
        seen |= {(group, name): (n, 1) for name in flag}
    written = seen | {("walker", "reward"): (3, 1), ("boss", "reward"): (2, 1)}
    expected = seen | {("walker", "action"): (3,), ("boss", "action"): (2,)}
    expected |= {("next", *((key,) if isinstance(key, str) else key)): shape for key, shape in written.items()}
    assert shapes == expected
    assert data.shape == (4, 6)
    assert env.group_map == {"walker": WALKERS, "boss": BOSSES}
    assert {data[key].dtype for key in ("state", ("walker", "observation"), ("next", "boss", "reward"))} == {
        torch.float32
    }


def test_first_numbers(make: Make) -> None:
    env = make(ToyEnv)
    root = env.reset()
    tag = [tags(7, 0, index, 1)[0] for index in range(4)]
    assert len(set(tag)) == 4
    for index in range(4):
        assert root["walker", "observation"][index].tolist() == [[tag[index], 10 * a, -1, 0] for a in range(3)]
        assert root["boss", "observation"][index].tolist() == [[tag[index], 10 * a, -1] for a in (3, 4)]
        assert root["state"][index].tolist() == [tag[index], 0]
    after = step(env, root, walker=3, boss=6)
    assert after["walker", "observation"][2].tolist() == [[tag[2], 10 * a + 1, 3, 0] for a in range(3)]
    assert after["boss", "observation"][3].tolist() == [[tag[3], 10 * a + 1, 6] for a in (3, 4)]
    assert after["walker", "reward"][1].flatten().tolist() == [100, 101, 102]
    assert after["boss", "reward"][1].flatten().tolist() == [103, 104]


def test_what_was_read_does_not_change(make: Make) -> None:
    env = make(ToyEnv)
    root = env.reset()
    kept, before = root, root.clone()
    step(env, root)
    env.reset()
    assert (kept == before).all()


def test_actions_of_a_wrong_shape_are_refused(make: Make) -> None:
    env = make(partial(ToyEnv, continuous=True))
    data = env.reset().update(actions(env))
    data["walker", "action"] = torch.zeros(4, 3, 1)
    with pytest.raises(UserError, match=r"walker.*action.*expected shape \(4, 3, 2\), found \(4, 3, 1\)"):
        env.step(data)


def test_continuous_actions_have_each_agents_bounds(make: Make) -> None:
    env = make(partial(ToyEnv, continuous=True))
    check_env_specs(env)
    low = env.full_action_spec["walker", "action"].space.low
    assert low[1].tolist() == [[-1, -1], [-2, -2], [-3, -3]]
    data = env.reset()
    data["walker", "action"] = torch.arange(24.0).view(4, 3, 2)
    data["boss", "action"] = -torch.arange(24.0).view(4, 2, 3)
    after = env.step(data)["next"]
    assert after["walker", "observation"][..., 2].tolist() == [[6 * i, 6 * i + 2, 6 * i + 4] for i in range(4)]
    assert after["boss", "observation"][..., 2].tolist() == [[-6 * i, -6 * i - 3] for i in range(4)]


def test_more_workers_than_divide_the_envs(make: Make) -> None:
    env = make(ToyEnv, n_envs=5, n_workers=3)
    assert env.reset()["state"][:, 0].tolist() == [tags(7, 0, index, 1)[0] for index in range(5)]


# --- groups


class Unlike(ToyEnv):
    """Walkers that differ: walker_1 has boss's spaces."""

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        return super().observation_space("boss_0" if agent == "walker_1" else agent)

    def _observe(self, agent: str, action: float) -> Any:
        return super()._observe(agent, action)[: 3 if agent == "walker_1" else None]


def test_groups_of_unlike_agents_are_split(make: Make) -> None:
    env = make(Unlike)
    assert env.group_map == {"walker_0": ["walker_0", "walker_2"], "walker_1": ["walker_1"], "boss": BOSSES}
    assert env.reset()["walker_0", "observation"][0, :, 1].tolist() == [0, 20]
    with pytest.raises(UserError, match="'walkers' differ"):
        make(Unlike, group_map={"walkers": WALKERS, "bosses": BOSSES})


def test_group_maps_are_checked(make: Make) -> None:
    env = make(ToyEnv, group_map={"b": BOSSES[::-1], "w": WALKERS})
    assert env.reset()["b", "observation"][0, :, 1].tolist() == [40, 30]
    with pytest.raises(UserError, match="once, found"):
        make(ToyEnv, group_map={"walkers": WALKERS})


def test_names_without_a_number_are_alone() -> None:
    assert group_by_name(["a_b_1", "a_b_2", "a_b", "c_x"]) == {"a_b": ["a_b_1", "a_b_2", "a_b"], "c_x": ["c_x"]}


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
        assert data["boss", "observation"][index, 3].tolist() == [[second, 30, -1], [second, 40, -1]]
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
            for entries, value in zip(out, (self._observe(agent, 9), 9.0, False, False, {}), strict=True):
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


# --- T6: resets touch only what is done


def test_a_partial_reset_leaves_the_others_bit_identical(make: Make) -> None:
    env = make(partial(ToyEnv, ends={"walker_1": (2, "terminated")}))
    data = step(env, step(env, env.reset()))
    mask = torch.tensor([False, True, False, False]).unsqueeze(-1)
    after = env.reset(data.clone().set("_reset", mask))
    rest = ~mask.squeeze()
    for key in after.keys(True, True):
        if key != "_reset":
            assert torch.equal(after[key][rest], data[key][rest]), key
    assert after["state"][1].tolist() == [tags(7, 0, 1, 2)[1], 0]
    assert not after["walker", "done"][1].any()
    assert after["walker", "done"][rest, 1].all()
    goes_on = step(env, after)
    assert goes_on["state"][:, 1].tolist() == [3, 1, 3, 3]
    assert goes_on["state"][rest, 0].tolist() == [tags(7, 0, index, 1)[0] for index in (0, 2, 3)]


def test_a_partial_step_leaves_the_others(make: Make) -> None:
    env = make(ToyEnv)
    data = env.reset().update(actions(env)).set("_step", torch.tensor([True, False, False, True]))
    assert env.step(data)["next", "state"][:, 1].tolist() == [1, 0, 0, 1]


# --- seeds and checkpoints


def run(env: WorkerEnv, steps: int, data: TensorDictBase | None = None) -> tuple[TensorDictBase, TensorDictBase]:
    data, stored = env.reset() if data is None else data, []
    for index in range(steps):
        stepped, data = env.step_and_maybe_reset(data.update(actions(env, walker=index % 5)))
        stored.append(stepped)
    return torch.stack(stored, -1), data


def test_the_data_depend_on_the_seed_and_not_on_the_workers(make: Make) -> None:
    first, *others = (run(make(ToyEnv, n_workers=n, max_steps=3), 8)[0] for n in (1, 2, 4))
    for other in others:
        assert (first == other).all()
    assert (run(make(ToyEnv, seed=8, max_steps=3), 8)[0]["state"] != first["state"]).any()
    env = make(ToyEnv, seed=8, max_steps=3)
    env.set_seed(7)
    assert (run(env, 8)[0] == first).all()


def test_streams_go_on_and_full_resets_do_not_restart_them(make: Make) -> None:
    env = make(ToyEnv)
    found = torch.stack([env.reset()["state"][:, 0] for _ in range(3)], -1)
    assert found.tolist() == [tags(7, 0, index, 3) for index in range(4)]


def test_this_processs_generators_are_untouched(make: Make) -> None:
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    run(make(ToyEnv, seed=None, max_steps=2), 3)
    found = torch.rand(1).item(), np.random.rand(), random.random()
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    assert found == (torch.rand(1).item(), np.random.rand(), random.random())


def test_a_checkpoint_resets_both_runs_to_the_same_data(make: Make) -> None:
    env = make(ToyEnv, max_steps=3)
    assert env.state_is_captured is False
    run(env, 4)
    state = env.state_dict()
    state = {key: dict(value) for key, value in state.items()}
    went_on, _ = run(env, 7)
    later, _ = run(env, 2)

    resumed = make(ToyEnv, max_steps=3, seed=99, n_workers=1)
    run(resumed, 2)
    resumed.load_state_dict(state)
    assert (run(resumed, 7)[0] == went_on).all()
    assert (run(resumed, 2)[0] == later).all()
    assert went_on["state"][:, 0, 0].tolist() == [tags(7, 1, index, 1)[0] for index in range(4)]


def test_a_partial_reset_does_not_start_the_checkpoints_epoch(make: Make) -> None:
    env = make(ToyEnv)
    data = env.reset()
    env.state_dict()
    data = env.reset(data.set("_reset", torch.tensor([[True], [False], [False], [False]])))
    assert data["state"][0, 0] == tags(7, 0, 0, 2)[1]
    assert env.reset()["state"][:, 0].tolist() == [tags(7, 1, index, 1)[0] for index in range(4)]


# --- factories, failures, the end


class Failing(ToyEnv):
    """Does ``what`` in step ``at`` of the env whose first tag is ``tag``."""

    def __init__(self, what: Callable[[], Any], at: int, tag: int) -> None:
        super().__init__()
        self.what, self.at, self.only = what, at, tag

    def step(self, actions: dict[str, Any]) -> Any:
        if self.tag == self.only and self.time + 1 == self.at:
            self.what()
        return super().step(actions)


def explode() -> None:
    raise ArithmeticError("two\nlines")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (explode, "worker 1 (envs 2-3) failed in step of env 3: ArithmeticError: two lines"),
        (lambda: sys.exit("bye"), "worker 1 (envs 2-3) failed in step of env 3: SystemExit: bye"),
        (lambda: os._exit(3), "worker 1 (envs 2-3) died: exit code 3"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "worker 1 (envs 2-3) died: killed by SIGKILL"),
    ],
    ids=["raises", "exits", "os._exit", "SIGKILL"],
)
def test_a_failing_worker_is_one_line_and_never_a_hang(make: Make, what: Callable[[], Any], message: str) -> None:
    env = make(lambda: Failing(what, 2, tags(7, 0, 3, 1)[0]))
    data = step(env, env.reset())
    start = time.monotonic()
    with pytest.raises(WorkerError) as caught:
        step(env, data)
    assert str(caught.value) == message
    assert time.monotonic() - start < 10
    assert not multiprocessing.active_children()
    with pytest.raises(WorkerError, match="have been closed; build the environment anew"):
        step(env, data)


def test_a_worker_that_died_between_two_steps_is_found(make: Make) -> None:
    env = make(ToyEnv)
    data = env.reset()
    victim = multiprocessing.active_children()[0]
    os.kill(victim.pid or 0, signal.SIGKILL)
    victim.join()
    with pytest.raises(WorkerError, match=r"died: killed by SIGKILL"):
        step(env, data)


def test_a_failing_factory(make: Make) -> None:
    with pytest.raises(
        WorkerError, match=r"^worker \d \(envs \d-\d\) failed in the factory of env \d: ArithmeticError: two"
    ):
        make(explode)
    with pytest.raises(UserError, match="expected it to return a pettingzoo ParallelEnv or AECEnv, found int"):
        make(lambda: 3)
    with pytest.raises(WorkerError, match=r"died: exit code 4"):
        make(lambda: os._exit(4))


def test_a_failing_reset(make: Make) -> None:
    class Stuck(ToyEnv):
        def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            if seed is not None:
                raise LookupError
            return super().reset(seed, options)

    with pytest.raises(WorkerError, match=r"^worker \d \(envs \d-\d\) failed in reset of env \d: LookupError\n"):
        make(Stuck).reset()


class Wrong(ToyEnv):
    def _observe(self, agent: str, action: float) -> Any:
        return np.zeros(1, np.float32) if self.time > 1 else super()._observe(agent, action)


def test_observations_are_not_broadcast(make: Make) -> None:
    with pytest.raises(WorkerError, match=r"ValueError: expected an observation of shape \(4,\), found \(1,\)"):
        make(Wrong).rollout(3)


def test_unlike_environments_are_refused(make: Make) -> None:
    lock, made = threading.Lock(), []

    def factory() -> ToyEnv:
        with lock:
            made.append(None)
        return ToyEnv(masks=len(made) > 1)

    with pytest.raises(UserError, match="expected every environment alike, found env 1"):
        make(factory)
    assert not made


def test_a_factory_need_not_pickle(make: Make) -> None:
    lock = threading.Lock()

    class Local(ToyEnv):
        def step(self, actions: dict[str, Any]) -> Any:
            with lock:
                return super().step(actions)

    assert make(lambda: Local(limit=3)).rollout(5).shape == (4, 3)


@pytest.mark.parametrize("name", ["n_envs", "n_workers", "max_steps"])
def test_arguments_out_of_range(name: str) -> None:
    with pytest.raises(UserError, match=f"{name}: expected an integer >= 1, found 0"):
        worker_env(ToyEnv, **({"n_envs": 2} | {name: 0}))


def test_seeds_out_of_range_and_states_that_are_not_there(make: Make) -> None:
    with pytest.raises(UserError, match="seed: expected an integer >= 0 or None, found -1"):
        make(ToyEnv, seed=-1)
    assert "state" not in make(ToyEnv, return_state=False).reset()
    assert "state" not in make(TurnEnv).reset()
    with pytest.raises(UserError, match=r"return_state: expected an environment with state\(\)"):
        make(TurnEnv, return_state=True)


class Slow(ToyEnv):
    def close(self) -> None:
        time.sleep(60)


def test_closing_does_not_wait_for_a_stuck_environment() -> None:
    env = worker_env(Slow, n_envs=2, n_workers=2)
    start = time.monotonic()
    env.close()
    env.close()
    assert time.monotonic() - start < 15
    assert not multiprocessing.active_children()


SCRIPT = """
import os, sys, signal
sys.path.insert(0, {path!r})
from toys import ToyEnv
from ctde_kit.envs.workers import worker_env
signal.signal(signal.SIGTERM, lambda *_: print("a worker ran the parent's handler"))
env = worker_env(ToyEnv, n_envs=2, n_workers=2)
other = worker_env(ToyEnv, n_envs=2, n_workers=2)
env.reset()
print(*[process.pid for pool in (env._pool, other._pool) for process in pool._processes], flush=True)
{end}
"""


@pytest.mark.parametrize("end", ["", "raise KeyboardInterrupt", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_no_worker_outlives_its_parent(end: str) -> None:
    code = SCRIPT.format(path=os.path.dirname(__file__), end=end)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False)
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 4, done.stderr
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and any(os.path.exists(f"/proc/{pid}") for pid in pids):
        time.sleep(0.1)
    assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}")]


# --- turns


def test_agents_that_act_in_turn(make: Make) -> None:
    env = make(partial(TurnEnv, last=5))
    assert env.group_map == {"player_0": ["player_0"], "player_1": ["player_1"]}
    check_env_specs(env)
    data = env.reset()
    masks, rewards = [], []
    for _ in range(5):
        masks.append([bool(data[player, "mask"][0]) for player in env.group_map])
        data = env.step(env.rand_action(data))["next"].clone()
        rewards.append([data[player, "reward"][0].item() for player in env.group_map])
        assert data["player_1", "observation"][3].tolist() == [[len(masks), 1]]
    assert masks == [[True, False], [False, True]] * 2 + [[True, False]]
    assert rewards == [[1, -1], [0, 0]] * 2 + [[1, -1]]
    assert data["terminated"].all()
    assert not data["truncated"].any()
    assert env.rollout(12, break_when_any_done=False)["next", "done"][2].flatten().nonzero().flatten().tolist() == [
        4,
        9,
    ]
