"""Compiled rollouts around an env that steps elsewhere: equal to the eager collector's, number for number."""

from __future__ import annotations

import copy
import itertools
import logging
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from tensordict import TensorDictBase
from torch import nn
from torchrl.envs import StepCounter, Transform

from ctde_kit.collectors import RolloutCollector
from ctde_kit.envs.workers import WorkerEnv, WorkerError
from ctde_kit.errors import NotFiniteError, UserError
from ctde_kit.graph.tracing import Graph
from ctde_kit.modules import TeamPolicy
from ctde_kit.recipes.wiring.transforms import with_transforms
from ctde_kit.specs import TeamSpec
from tests.contracts.fakes import CountingTransform, make_actor
from tests.envs.toys import Make, ToyEnv, actions, make_and_close

N_ENVS, LENGTH = 5, 6
make = pytest.fixture(name="make")(make_and_close)
Collect = Callable[..., RolloutCollector]


class Uneven(ToyEnv):
    """Episodes of 3 to 9 steps, drawn at each reset; walker 1 dies early; actions are masked."""

    def __init__(self) -> None:
        super().__init__(ends={"walker_1": (2, "terminated")}, masks=True)

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        entries = super().reset(seed=seed)
        self.limit = 3 + self.tag % 7
        return entries


@pytest.fixture
def collect(make: Make) -> Collect:
    """Makes collectors of the same env and weights; each in a batch of 5 envs in 2 processes."""

    def build(compile: bool, *, recurrent: bool = False, factory: Callable[[], Any] = Uneven) -> RolloutCollector:
        base_env = make(factory, n_envs=N_ENVS, max_steps=8, infos=["points"])
        team = TeamSpec.from_env(base_env)
        torch.manual_seed(3)
        policy = TeamPolicy({group.name: make_actor(group, recurrent) for group in team.groups})
        env = with_transforms(base_env, team, policy)
        return RolloutCollector(env, policy, frames_per_batch=N_ENVS * LENGTH, compile=compile)

    return build


def batches(collector: RolloutCollector, count: int = 4, seed: int = 5) -> TensorDictBase:
    torch.manual_seed(seed)
    return torch.cat([collector.rollout() for _ in range(count)], 1)


def assert_same(first: TensorDictBase, second: TensorDictBase, tolerance: float = 0.0) -> None:
    one, other = dict(first.items(True, True)), dict(second.items(True, True))
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert value.dtype == other[key].dtype
        torch.testing.assert_close(value, other[key], rtol=tolerance, atol=tolerance, msg=str(key))


@pytest.mark.parametrize("recurrent", [False, True])
def test_batches_are_the_eager_collectors(collect: Collect, recurrent: bool, graphs: None) -> None:
    compiled, eager = collect(True, recurrent=recurrent), collect(False, recurrent=recurrent)
    found, expected = batches(compiled), batches(eager)
    assert compiled.compile
    assert_same(found, expected, 1e-5)
    done = expected["next", "done"][..., 0]
    assert len(set(done.sum(1).tolist())) > 1, "episodes end apart"
    assert (done.sum(0) < N_ENVS).all()
    assert not expected["next", "walker", "mask"].all()


def test_compiled_for_real_it_also_acts_with_changed_weights(collect: Collect) -> None:
    assert_same_with_changed_weights(collect(True), collect(False))


def test_steps_follow_each_other_within_and_across_batches(collect: Collect, graphs: None) -> None:
    batch = batches(collect(True))
    done, key = batch["next", "done"][..., 0], ("walker", "observation")
    going_on = ~done[:, :-1]
    assert torch.equal(batch["next"][key][:, :-1][going_on], batch[key][:, 1:][going_on])
    times = batch[key][..., 0, 1]
    assert (times[:, 1:][~going_on] == 0).all(), "an env whose episode ended goes on from its reset"
    last = batch["next"][key][:, :-1][..., 0, 1][~going_on]
    assert (last >= 3).all(), "a step's own observation is the last one of its episode, not the reset's"


def test_changed_weights_act_in_the_next_batch(collect: Collect, graphs: None) -> None:
    assert_same_with_changed_weights(collect(True, recurrent=True), collect(False, recurrent=True))


def assert_same_with_changed_weights(compiled: RolloutCollector, eager: RolloutCollector) -> None:
    before = batches(compiled, 2)
    assert_same(before, batches(eager, 2), 1e-5)
    for collector in (compiled, eager):
        torch.manual_seed(11)
        with torch.no_grad():
            for parameter in collector.policy.parameters():
                parameter.add_(0.5 * torch.randn_like(parameter))
    assert_same(batches(compiled), batches(eager), 1e-5)
    assert compiled.compile


def test_a_loaded_collector_goes_on_bit_for_bit(collect: Collect, graphs: None) -> None:
    compiled, loaded = collect(True), collect(True)
    compiled.rollout()
    state = copy.deepcopy(compiled.state_dict())
    continued = batches(compiled)
    assert not continued["walker", "observation"][:, 0, 0, 1].any(), "a checkpoint ends the episodes"
    loaded.load_state_dict(state)
    assert_same(continued, batches(loaded))


def test_random_numbers_are_drawn_while_the_envs_step(
    collect: Collect, graphs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector: Any = collect(True)
    collector.rollout()
    events: list[str] = []

    def noting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: (events.append(name), function(*args))[1]

    env = collector.env.base_env
    for owner, name in ((env, "begin_step"), (env, "finish_step"), (Graph, "draw")):
        monkeypatch.setattr(owner, name, noting(name, getattr(owner, name)))
    collector.rollout()
    steps = ["begin_step", "draw", "draw", "finish_step"] * (LENGTH - 1)
    assert events == ["draw", *steps, "begin_step", "draw", "finish_step"]


def test_compiling_leaves_the_random_stream_alone(collect: Collect, graphs: None) -> None:
    collector = collect(True)
    root, before = collector.env.reset(), torch.random.get_rng_state()
    collector._compile(root)
    assert collector.compile
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("make_transform", [CountingTransform, partial(StepCounter, max_steps=2)])
def test_transforms_that_may_keep_state_or_end_episodes_are_stepped_eagerly(
    collect: Collect, caplog: pytest.LogCaptureFixture, make_transform: Callable[[], Transform]
) -> None:
    found = []
    for compile in (True, False):
        collector: Any = collect(compile)
        collector.env.append_transform(make_transform())
        with caplog.at_level(logging.WARNING, logger="ctde_kit"):
            found.append(batches(collector))
        assert not collector.compile
    name = type(make_transform()).__name__
    assert (
        caplog.messages[0]
        == f"the rollout is not compiled: {name} may keep something from step to step, or end episodes"
    )
    assert_same(*found)


class CountingPolicy(nn.Module):
    """A policy that no graph can hold, and that is not to be moved on by trying."""

    def __init__(self, policy: TeamPolicy, in_python: bool) -> None:
        super().__init__()
        self.policy, self.in_python, self.calls = policy, in_python, 0
        self.in_keys, self.out_keys = policy.in_keys, policy.out_keys
        self.register_buffer("count", torch.zeros(()))

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        if self.in_python:
            self.calls += 1
        else:
            self.count.add_(1)
        return self.policy(tensordict)


@pytest.mark.parametrize("in_python", [True, False])
def test_policies_that_count_are_called_once_per_step(
    collect: Collect, caplog: pytest.LogCaptureFixture, in_python: bool
) -> None:
    collector: Any = collect(True)
    collector.policy = policy = CountingPolicy(collector.policy, in_python)
    with caplog.at_level(logging.WARNING, logger="ctde_kit"):
        collector.rollout()
    counted = "calls" if in_python else "count"
    assert caplog.messages[0] == f"the rollout is not compiled: CountingPolicy keeps changing {counted}"
    assert policy.calls + policy.count.item() == LENGTH


def test_a_seed_set_on_the_way_is_that_of_the_next_episodes(collect: Collect, graphs: None) -> None:
    found = []
    for compile in (True, False):
        collector = collect(compile)
        first = batches(collector, 1)
        collector.set_seed(99)
        found.append(torch.cat([first, batches(collector, 3)], 1))
    assert_same(*found, tolerance=1e-5)


def test_random_actions_after_a_batch_obey_its_masks(collect: Collect, graphs: None) -> None:
    collector = collect(True)
    batches(collector)
    assert collector._next_root is not None
    mask = collector._next_root["walker", "action_mask"]
    for _ in range(20):
        action = collector.env.base_env.full_action_spec["walker", "action"].rand()
        assert mask.gather(-1, action.unsqueeze(-1)).all()


class NaNs(ToyEnv):
    """Shows a NaN at its third step."""

    def _observe(self, agent: str, action: float) -> Any:
        observation = super()._observe(agent, action)
        observation[3] = float("nan") if self.time == 3 else 0
        return observation


def test_a_nan_is_named_where_it_arises(collect: Collect, graphs: None) -> None:
    with pytest.raises(NotFiniteError, match="observation of group 'boss' is nan in env 0"):
        batches(collect(True, factory=NaNs))


class Failing(Uneven):
    """Fails in its third episode's step or reset."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where, self.episodes = where, itertools.count()

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        # The first reset tells the parent what the env is like.
        self.failing = next(self.episodes) == 3
        if self.failing and self.where == "reset":
            raise ArithmeticError("broken")
        return super().reset(seed)

    def step(self, actions: dict[str, Any]) -> Any:
        if self.failing and self.where == "step":
            raise ArithmeticError("broken")
        if self.failing and self.where == "died":
            os._exit(3)
        return super().step(actions)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("step", r"worker \d \(envs \d-\d\) failed in step of env \d: ArithmeticError: broken"),
        ("reset", r"worker \d \(envs \d-\d\) failed in reset of env \d: ArithmeticError: broken"),
        ("died", r"worker \d \(envs \d-\d\) died: exit code 3"),
    ],
)
def test_a_failing_env_is_named(collect: Collect, graphs: None, where: str, message: str) -> None:
    collector = collect(True, factory=lambda: Failing(where))
    with pytest.raises(WorkerError, match=message):
        batches(collector, 10)
    assert collector.compile


class Slow(ToyEnv):
    """Takes its time, and shows the sum of the first walker's actions."""

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        time.sleep(0.1)
        self.total = 0.0
        return super().reset(seed)

    def step(self, actions: dict[str, Any]) -> Any:
        time.sleep(0.1)
        self.total += float(actions["walker_0"])
        return super().step(actions)

    def _observe(self, agent: str, action: float) -> Any:
        observation = super()._observe(agent, action)
        observation[3] = self.total
        return observation


def test_a_step_that_was_begun_does_not_mix_with_the_next_command(make: Make) -> None:
    env: WorkerEnv = make(Slow)
    env.reset()
    chosen = {key: actions(env)[key] for key in env.action_keys}
    env.begin_step(chosen)
    data = env.reset()
    assert not data["walker", "observation"][..., 1].remainder(10).any(), "all envs stand at their reset"
    env.begin_step({key: torch.zeros_like(action) for key, action in chosen.items()})
    env.begin_step(chosen)
    env.finish_step()
    assert (env.outcome.now["walker", "observation"][..., 0, 1] == 2).all()
    assert (env.outcome.now["walker", "observation"][..., 0, 3] == 1).all(), "each action was played once"
    with pytest.raises(UserError, match=r"'action'\): expected shape \(4, 3\), found \(4, 2\)"):
        env.begin_step({key: action[:, :2] for key, action in chosen.items()})


def test_an_outcome_has_last_steps_and_resets_apart(make: Make) -> None:
    limits = itertools.cycle([1, 3])
    env: WorkerEnv = make(lambda: ToyEnv(limit=next(limits)))
    first = env.reset()["walker", "observation"][..., 0, 0].clone()
    env.begin_step({key: actions(env)[key] for key in env.action_keys})
    env.finish_step()
    now, last, ended = env.outcome.now, env.outcome.last, env.outcome.ended[:, 0]
    assert ended.tolist() == [True, False, True, False]
    assert now["walker", "observation"][:, 0, 1].tolist() == [0, 1, 0, 1]
    assert now["walker", "reward"][:, 0, 0].tolist() == [0, 100, 0, 100]
    assert not now["done"].any()
    assert last["walker", "observation"][ended][:, 0, 1].tolist() == [1, 1]
    assert last["boss", "reward"][ended][:, 1, 0].tolist() == [104, 104]
    assert last["truncated"][ended].all()
    assert torch.equal(last["walker", "observation"][..., 0, 0][ended], first[ended]), "the tag of the old episode"
    assert (now["walker", "observation"][..., 0, 0][ended] != first[ended]).all(), "and that of the new one"


def test_an_answering_env_does_not_run(make: Make) -> None:
    env: WorkerEnv = make(ToyEnv)
    root = env.reset()
    step: Any = root.clone().update(env.full_reward_spec.zero())
    step["walker", "observation"] += 7
    with env.answering(step, root) as asked:
        answered = env.step(root.clone().update(actions(env, walker=3)))["next"]
    assert torch.equal(answered["walker", "observation"], step["walker", "observation"])
    assert (asked[0]["walker", "action"] == 3).all()
    again = env.step(root.clone().update(actions(env)))["next"]
    assert (again["walker", "observation"][:, 0, 1] == 1).all(), "the first step that ran"


def test_a_closed_env_says_so_in_the_middle_of_a_step(make: Make) -> None:
    env: WorkerEnv = make(ToyEnv)
    env.reset()
    env.begin_step({key: actions(env)[key] for key in env.action_keys})
    env.close()
    with pytest.raises(WorkerError, match="have been closed"):
        env.finish_step()
