"""Batches of a compiled rollout: equal to the eager collector's, except that initial states are drawn earlier."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tensordict import TensorDictBase
from torch import Tensor
from vmas.simulator.scenario import BaseScenario

from ctde_kit.collectors import RolloutCollector
from ctde_kit.envs.games import RecallEnv
from ctde_kit.envs.vmas import VmasEnv
from ctde_kit.keys import GroupKeys
from ctde_kit.modules import MultiAgentActor, TeamPolicy
from ctde_kit.recipes.wiring.transforms import with_transforms
from ctde_kit.specs import TeamSpec
from tests.contracts.fakes import CountingTransform, make_actor
from tests.envs.scenarios import Branching, Counting, Drift, Rolling, Whole

N_ENVS, LENGTH, MAX_STEPS = 4, 10, 7
KEYS = GroupKeys()
OBSERVATION, REWARD, RETURN = KEYS.observation, ("next", *KEYS.reward), ("next", *KEYS.episode_reward)


def make_collector(
    scenario: type[BaseScenario] = Drift, *, compile: bool = True, recurrent: bool = False, length: int = LENGTH
) -> RolloutCollector:
    """The same env and weights each time."""
    base_env = VmasEnv(scenario(), num_envs=N_ENVS, max_steps=MAX_STEPS, seed=1)
    team = TeamSpec.from_env(base_env)
    torch.manual_seed(3)
    policy = TeamPolicy({"agents": make_actor(team["agents"], recurrent, learned_scale=True)})
    env = with_transforms(base_env, team, policy)
    return RolloutCollector(env, policy, frames_per_batch=N_ENVS * length, total_frames=10**6, compile=compile)


def actor_of(collector: RolloutCollector) -> MultiAgentActor:
    policy: Any = collector.policy
    return policy.actors["agents"]


class Started:
    """A collector that has compiled, and how it was then: episodes end at different steps."""

    def __init__(self, collector: RolloutCollector):
        self.collector = collector
        collector.rollout()
        collector.env.base_env.elapsed.copy_(torch.arange(N_ENVS).unsqueeze(-1) * 2 % MAX_STEPS)
        self.state = copy.deepcopy(collector.state_dict())
        self.weights = copy.deepcopy(actor_of(collector).state_dict())

    def again(self, **changes: Any) -> RolloutCollector:
        self.collector.load_state_dict({**copy.deepcopy(self.state), **changes})
        actor_of(self.collector).load_state_dict(self.weights)
        torch.manual_seed(5)
        return self.collector


@pytest.fixture(scope="module")
def started() -> Started:
    return Started(make_collector())


@pytest.fixture
def compiled(started: Started) -> Iterator[RolloutCollector]:
    collector = started.again()
    yield collector
    assert collector.compile


@pytest.fixture
def eager(started: Started) -> RolloutCollector:
    collector = make_collector(compile=False)
    collector.load_state_dict(copy.deepcopy(started.state))
    torch.manual_seed(5)
    return collector


def leaves(batch: TensorDictBase) -> dict[Any, Tensor]:
    return dict(batch.items(True, True))


def assert_same(first: TensorDictBase, second: TensorDictBase) -> None:
    first_leaves, second_leaves = leaves(first), leaves(second)
    assert first_leaves.keys() == second_leaves.keys()
    for key, value in first_leaves.items():
        assert torch.equal(value, second_leaves[key]), key


def joined(collector: RolloutCollector, batches: int = 3) -> TensorDictBase:
    return torch.cat([collector.rollout() for _ in range(batches)], 1)


def test_batches_look_like_the_eager_collectors(compiled: RolloutCollector, eager: RolloutCollector) -> None:
    actual, expected = compiled.rollout(), eager.rollout()
    assert actual.batch_size == expected.batch_size == (N_ENVS, LENGTH)
    described = [
        {key: (value.shape, value.dtype) for key, value in leaves(batch).items()} for batch in (actual, expected)
    ]
    assert described[0] == described[1]
    groups = [(batch["agents"].batch_size, batch["next", "agents"].batch_size) for batch in (actual, expected)]
    assert groups[0] == groups[1]


def test_steps_follow_each_other_within_and_across_batches(compiled: RolloutCollector) -> None:
    batch = joined(compiled)
    done = batch["next", "done"][:, :-1, 0]
    assert done.any(1).all()
    for key in leaves(batch["next"]):
        # Rewards have no root; the root's flags are those of an env that goes on.
        if key in leaves(batch):
            following, root = batch["next"][key][:, :-1], batch[key][:, 1:]
            assert torch.equal(following[~done], root[~done]), key
    before, after = batch["next"][OBSERVATION][:, :-1][done], batch[OBSERVATION][:, 1:][done]
    assert (before != after).flatten(1).any(1).all()


def test_a_done_env_goes_on_from_a_fresh_state(compiled: RolloutCollector) -> None:
    batch = joined(compiled)
    done = batch["next", "done"][:, :-1, 0]
    assert torch.equal(batch["is_init"][:, 1:, 0], done)
    first = batch[OBSERVATION][:, 1:][done]
    assert first[..., :2].abs().max() <= 0.5
    assert not first[..., 2:].any(), "speeds and hits begin at 0"
    assert not batch["done"].any()
    assert not batch["next", "is_init"].any()
    total = torch.zeros(N_ENVS, 2, 1) + batch["agents", "episode_reward"][:, 0]
    for t in range(batch.shape[1]):
        total = torch.where(batch["is_init"][:, t, :, None], 0.0, total) + batch[REWARD][:, t]
        torch.testing.assert_close(batch[RETURN][:, t], total)


def test_the_time_limit_truncates_and_starts_again(compiled: RolloutCollector) -> None:
    batch = joined(compiled)
    elapsed = [2 * i % MAX_STEPS for i in range(N_ENVS)]
    expected = [[(begun + t + 1) % MAX_STEPS == 0 for t in range(3 * LENGTH)] for begun in elapsed]
    assert batch["next", "truncated"][..., 0].tolist() == expected
    assert torch.equal(batch["next", "done"], batch["next", "truncated"])
    assert not batch["next", "terminated"].any()


def test_resets_leave_the_other_envs_alone(compiled: RolloutCollector, eager: RolloutCollector) -> None:
    batch = joined(compiled, 1)
    env = eager.env.base_env
    for t in range(LENGTH):
        outputs = env.eager_step([batch[KEYS.action][:, t]])
        same = batch["next", "done"][:, :t, 0].sum(1) == 0
        assert same.any() or t >= MAX_STEPS
        for key in (KEYS.observation, KEYS.reward, "done", "truncated"):
            torch.testing.assert_close(batch["next"][key][:, t][same], outputs[key][same], rtol=1e-5, atol=1e-5)


def test_each_initial_state_is_used_once(compiled: RolloutCollector) -> None:
    batch = joined(compiled, 6)
    positions = batch[OBSERVATION][batch["is_init"][..., 0]][..., :2].flatten(1)
    assert len(positions) > 4 * N_ENVS
    assert len(positions.unique(dim=0)) == len(positions)


def test_a_batch_with_too_few_initial_states_is_collected_eagerly(graphs: None) -> None:
    collector = make_collector(length=3 * MAX_STEPS)
    collector.rollout()
    state, random_state = copy.deepcopy(collector.state_dict()), torch.random.get_rng_state()
    state["recent_resets"] = 0.0
    collector.load_state_dict(copy.deepcopy(state))
    other = make_collector(length=3 * MAX_STEPS, compile=False)
    other.load_state_dict(copy.deepcopy(state))
    torch.random.set_rng_state(random_state)
    batch = collector.rollout()
    torch.random.set_rng_state(random_state)
    assert_same(batch, other.rollout())

    assert collector.compile
    assert collector.recent_resets == 2 * N_ENVS
    torch.random.set_rng_state(random_state)
    following = collector.rollout()
    assert collector._compiled is not None
    assert torch.equal(following[OBSERVATION][:, 0], other._next_root[OBSERVATION])
    torch.random.set_rng_state(random_state)
    # Compiled batches draw their initial states beforehand.
    assert not torch.equal(following[OBSERVATION], other.rollout()[OBSERVATION])


@torch.no_grad()
def largest_ratio(collector: RolloutCollector, batch: TensorDictBase) -> float:
    """How far the probability of an action now is from the one that was stored."""
    flat = batch.reshape(-1)
    log_prob = actor_of(collector).get_dist(flat).log_prob(flat[KEYS.action])
    assert log_prob.shape == flat[KEYS.action_log_prob].shape
    return (log_prob - flat[KEYS.action_log_prob]).abs().max().item()


def test_changed_weights_act_in_the_next_batch(started: Started) -> None:
    assert_changed_weights_act(started.again(), recurrent=False)


def test_changed_weights_of_recurrent_actors_act_in_the_next_batch(graphs: None) -> None:
    assert_changed_weights_act(Started(make_collector(recurrent=True)).again(), recurrent=True)


def assert_changed_weights_act(collector: RolloutCollector, *, recurrent: bool) -> None:
    before = collector.rollout()
    assert largest_ratio(collector, before) < 1e-5
    with torch.no_grad():
        for parameter in collector.policy.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    assert largest_ratio(collector, before) > 0.1
    after = collector.rollout()
    assert largest_ratio(collector, after) < 1e-5
    assert collector.compile
    if recurrent:
        hidden = actor_of(collector).agent_network.hidden_key
        init = after["is_init"][..., 0]
        assert after[hidden][~init].any()
        assert not after[hidden][init].any()


def test_a_loaded_collector_goes_on_bit_for_bit(compiled: RolloutCollector) -> None:
    compiled.rollout()
    state, random_state = copy.deepcopy(compiled.state_dict()), torch.random.get_rng_state()
    assert (state["env"]["elapsed"] > 0).any(), "in the middle of episodes"
    assert state["recent_resets"] > 0
    loaded = make_collector()
    loaded.load_state_dict(state)
    assert loaded.recent_resets == compiled.recent_resets
    torch.random.set_rng_state(random_state)
    continued = joined(compiled)
    random_after = torch.random.get_rng_state()
    torch.random.set_rng_state(random_state)
    assert_same(continued, joined(loaded))
    assert torch.equal(torch.random.get_rng_state(), random_after)
    assert loaded.compile


@pytest.mark.parametrize("categorical_actions", [True, False])
def test_rollouts_of_discrete_actions_are_compiled(categorical_actions: bool, graphs: None) -> None:
    env = VmasEnv(
        Drift(),
        num_envs=N_ENVS,
        max_steps=MAX_STEPS,
        seed=1,
        continuous_actions=False,
        categorical_actions=categorical_actions,
    )
    team = TeamSpec.from_env(env)
    assert team["agents"].action.kind == ("categorical" if categorical_actions else "one_hot")
    policy = TeamPolicy({"agents": make_actor(team["agents"])})
    collector = RolloutCollector(
        with_transforms(env, team, policy), policy, frames_per_batch=N_ENVS * LENGTH, total_frames=10**6, compile=True
    )
    first, batch = collector.rollout(), collector.rollout()
    assert collector.compile
    assert batch[KEYS.action].dtype == first[KEYS.action].dtype == torch.int64
    assert largest_ratio(collector, batch) < 1e-5


def test_compiling_leaves_the_random_streams_alone(graphs: None) -> None:
    env_states, random_states = [], []
    for compile in (True, False):
        collector = make_collector(compile=compile)
        root = collector.env.reset()
        torch.manual_seed(5)
        if compile:
            collector._compile(root)
            assert collector.compile
        env_states.append(collector.env.base_env.random_stream.state_dict()["torch"])
        random_states.append(torch.random.get_rng_state())
    assert torch.equal(*random_states)
    assert torch.equal(*env_states)


def test_checkpoints_pass_between_compiled_and_eager_collectors(
    compiled: RolloutCollector, eager: RolloutCollector
) -> None:
    for first, second in ((compiled, eager), (eager, compiled)):
        first.rollout()
        last = first.rollout()
        state = copy.deepcopy(first.state_dict())
        second.load_state_dict(state)
        batch = second.rollout()
        going_on = ~last["next", "done"][:, -1, 0]
        assert going_on.any()
        assert torch.equal(last["next"][OBSERVATION][:, -1][going_on], batch[OBSERVATION][:, 0][going_on])
        elapsed = state["env"]["elapsed"][:, 0].tolist()
        expected = [[(begun + t + 1) % MAX_STEPS == 0 for t in range(LENGTH)] for begun in elapsed]
        assert batch["next", "truncated"][..., 0].tolist() == expected


REASONS = {
    Counting: "keeps changing state in Python: .*count",
    Branching: "branches on a tensor at scenarios.py:",
    Rolling: "draws from Python's or numpy's random generator",
    Whole: "a reset changes .*wind, one value for the whole batch",
    RecallEnv: "RecallEnv keeps its state out of reach",
}


def make_refused(kind: type, compile: bool) -> RolloutCollector:
    if kind is not RecallEnv:
        return make_collector(kind, compile=compile)
    base_env = RecallEnv(num_envs=N_ENVS, length=MAX_STEPS)
    team = TeamSpec.from_env(base_env)
    torch.manual_seed(3)
    policy = TeamPolicy({"agents": make_actor(team["agents"])})
    env = with_transforms(base_env, team, policy)
    return RolloutCollector(env, policy, frames_per_batch=N_ENVS * LENGTH, total_frames=10**6, compile=compile)


@pytest.mark.parametrize("kind", REASONS, ids=lambda kind: kind.__name__)
@pytest.mark.filterwarnings("ignore:scenario .* keeps state")
def test_what_cannot_be_compiled_says_so_and_is_collected_eagerly(kind: type, caplog: pytest.LogCaptureFixture) -> None:
    batches = []
    with caplog.at_level(logging.WARNING, logger="ctde_kit"):
        for compile in (True, False):
            collector = make_refused(kind, compile)
            torch.manual_seed(5)
            batches.append(torch.cat([collector.rollout(), collector.rollout()], 1))
            assert not collector.compile
    (record,) = caplog.records
    message = record.getMessage()
    assert message.startswith("the rollout is not compiled: ")
    assert "\n" not in message
    assert re.search(REASONS[kind], message), message
    assert batches[0].shape == (N_ENVS, 2 * LENGTH)
    if kind is not Rolling:
        assert_same(*batches)


def test_a_transform_that_counts_in_python_is_not_compiled(caplog: pytest.LogCaptureFixture) -> None:
    collector: Any = make_collector()
    collector.env.append_transform(CountingTransform())
    with caplog.at_level(logging.WARNING, logger="ctde_kit"):
        batch = collector.rollout()
    assert caplog.messages == ["the rollout is not compiled: CountingTransform keeps changing calls"]
    assert batch["next", "calls"][0, :, 0].diff().tolist() == [1.0] * (LENGTH - 1)
