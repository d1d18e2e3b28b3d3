"""What a user's own scenario may keep, and where: it survives partial resets of others, saving and loading."""

from __future__ import annotations

import copy
import enum
import random
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from vmas.simulator.core import Agent, World

from ctde_kit.collectors import RolloutCollector
from ctde_kit.envs.vmas import VmasEnv
from ctde_kit.graph import TraceError
from tests.envs.vmas.keeping import N_ENVS, Keeping, build, reset_first, rewards


class Pair(NamedTuple):
    first: Any
    second: Any


class Slotted:
    __slots__ = ("held",)

    def __init__(self, held: Tensor) -> None:
        self.held = held


class Phase(enum.Enum):
    FIRST = 1
    LATER = 2


def counting(hold: Callable[[Tensor], Any], read: Callable[[Any], Tensor]) -> type[Keeping]:
    """Counts each env's steps in a tensor that is replaced at each of them."""

    class Counting(Keeping):
        def prepare(self, world: World) -> None:
            self.held = hold(torch.zeros(world.batch_dim))

        def begin(self, env_index: int | None) -> None:
            count = read(self.held).clone()
            count[slice(None) if env_index is None else env_index] = 0
            self.held = hold(count)

        def advance(self) -> None:
            self.held = hold(read(self.held) + 1)

        def seen(self, agent: Agent) -> Tensor:
            return read(self.held).clone()

    return Counting


COUNTING = {
    "attribute": counting(lambda count: count, lambda held: held),
    "list": counting(lambda count: [count], lambda held: held[0]),
    "dictionary": counting(lambda count: {"count": count}, lambda held: held["count"]),
    "tuple": counting(lambda count: (count, 1), lambda held: held[0]),
    "tuple in a tuple": counting(lambda count: (1, (count, [count])), lambda held: held[1][0]),
    "named tuple": counting(lambda count: Pair(1, count), lambda held: held.second),
    "deque": counting(lambda count: deque([count]), lambda held: held[0]),
    "slots": counting(Slotted, lambda held: held.held),
    "array": counting(lambda count: count.numpy().copy(), torch.from_numpy),
}


@pytest.mark.parametrize("place", COUNTING)
def test_tensors_and_arrays_anywhere_are_reset_saved_and_loaded(place: str) -> None:
    env, other = build(COUNTING[place]), build(COUNTING[place], seed=1)
    rewards(env, 2)
    reset_first(env)
    assert rewards(env) == [[1, 1], [3, 3], [3, 3]]
    other.load_state_dict(env.state_dict())
    assert rewards(other) == rewards(env) == [[2, 2], [4, 4], [4, 4]]


class SharedGoal(Keeping):
    """One goal for the whole batch, drawn at full resets alone, in place."""

    def prepare(self, world: World) -> None:
        self.goal = torch.zeros(2)

    def begin(self, env_index: int | None) -> None:
        if env_index is None:
            self.goal.copy_(torch.rand(2))

    def seen(self, agent: Agent) -> Tensor:
        return self.goal.sum().expand(self.world.batch_dim)


def test_a_shared_tensor_that_a_reset_changes_in_place_is_found() -> None:
    env = build(SharedGoal)
    before = rewards(env)
    reset_first(env)
    assert env.python_state == ("env.scenario.goal",)
    assert rewards(env) == before


class OneScore(Keeping):
    """One tensor under two names, changed in place, and a Python value for the whole batch."""

    def prepare(self, world: World) -> None:
        self.score, self.resets = torch.zeros(world.batch_dim), 0
        for agent in world.agents:
            agent.score = self.score

    def begin(self, env_index: int | None) -> None:
        self.resets += env_index is None
        self.score[slice(None) if env_index is None else env_index] = 0

    def advance(self) -> None:
        self.score += 1

    def seen(self, agent: Agent) -> Tensor:
        return agent.score.clone()


class OneScoreAlone(OneScore):
    """The same without the Python value, so that partial resets stay one batch."""

    def begin(self, env_index: int | None) -> None:
        self.score[slice(None) if env_index is None else env_index] = 0


@pytest.mark.parametrize(("scenario", "found"), [(OneScore, ("env.scenario.resets",)), (OneScoreAlone, ())])
def test_a_tensor_of_two_names_stays_one(scenario: type[OneScore], found: tuple[str, ...]) -> None:
    env = build(scenario)
    score: Any = env.world.agents[0]
    held = score.score
    rewards(env, 2)
    reset_first(env)
    assert env.python_state == found
    assert rewards(env) == [[1, 1], [3, 3], [3, 3]]
    assert score.score is held


class Log(Keeping):
    """A list that each reset makes longer, and each step, too."""

    def prepare(self, world: World) -> None:
        self.log: list[int] = []

    def begin(self, env_index: int | None) -> None:
        self.log.append(-1 if env_index is None else env_index)

    def advance(self) -> None:
        self.log.append(9)

    def seen(self, agent: Agent) -> Tensor:
        return torch.full((self.world.batch_dim,), float(len(self.log)))


class EmptiedLog(Log):
    def begin(self, env_index: int | None) -> None:
        if env_index is None:
            self.log.clear()


class Keys(Log):
    """A dictionary and a set that each reset makes larger, and an attribute that it adds."""

    def prepare(self, world: World) -> None:
        self.log: Any = {}
        self.all: set[int] = set()

    def begin(self, env_index: int | None) -> None:
        self.log[len(self.log)] = env_index
        self.all.add(len(self.log))
        setattr(self, f"reset_{len(self.log)}", True)

    def advance(self) -> None:
        self.log[f"step {len(self.log)}"] = 1


def attributes(env: VmasEnv) -> dict[str, Any]:
    """Of the scenario, with copies of what it holds."""
    held = vars(env.simulation.world.scenario)
    return {name: copy.copy(value) for name, value in held.items() if name in ("log", "all") or "reset_" in name}


@pytest.mark.parametrize("scenario", [Log, EmptiedLog, Keys])
def test_a_batched_reset_that_is_given_up_leaves_nothing_behind(scenario: type[Log]) -> None:
    env = build(scenario)
    rewards(env)
    before = attributes(env)
    reset_first(env)
    expected: dict[type[Log], Callable[[], dict[str, Any]]] = {
        Log: lambda: {"log": [*before["log"], 0]},
        EmptiedLog: lambda: before,
        Keys: lambda: {
            **before,
            "log": {**before["log"], len(before["log"]): 0},
            "all": {*before["all"], len(before["log"]) + 1},
            f"reset_{len(before['log']) + 1}": True,
        },
    }
    assert attributes(env) == expected[scenario]()


class Visits(Keeping):
    """An array that is changed in place, and an attribute that only full resets add."""

    def prepare(self, world: World) -> None:
        self.visits = np.zeros(world.batch_dim)

    def begin(self, env_index: int | None) -> None:
        self.visits[slice(None) if env_index is None else env_index] = 0
        if env_index is None:
            self.full = True

    def advance(self) -> None:
        self.visits += 1

    def seen(self, agent: Agent) -> Tensor:
        return torch.from_numpy(self.visits).clone()


def test_arrays_and_attributes_are_put_back() -> None:
    env = build(Visits)
    scenario: Any = env.simulation.world.scenario
    del scenario.full
    rewards(env, 2)
    reset_first(env)
    assert not hasattr(scenario, "full")
    assert rewards(env) == [[1, 1], [3, 3], [3, 3]]


@pytest.mark.parametrize(("saved_after", "loaded_after"), [(2, 0), (2, 1), (1, 4)])
@pytest.mark.parametrize("scenario", [Log, Keys])
def test_lists_and_dictionaries_of_another_length_are_loaded(
    scenario: type[Log], saved_after: int, loaded_after: int
) -> None:
    env, other = build(scenario), build(scenario, seed=1)
    for one, steps in ((env, saved_after), (other, loaded_after)):
        if steps:
            rewards(one, steps)
    other.load_state_dict(env.state_dict())
    ours, theirs = attributes(env), attributes(other)
    assert (theirs["log"], theirs.get("all")) == (ours["log"], ours.get("all"))
    assert rewards(other) == rewards(env)


class Phases(Keeping):
    def prepare(self, world: World) -> None:
        self.phase, self.step, self.lines = Phase.FIRST, np.float32(0.0), [[]]

    def advance(self) -> None:
        self.phase, self.step = Phase.LATER, self.step + np.float32(0.1)
        self.lines.append([float(self.step)])


def test_members_of_enums_numbers_of_numpy_and_nested_lists_are_loaded() -> None:
    env, other = build(Phases), build(Phases)
    rewards(env, 2)
    other.load_state_dict(env.state_dict())
    ours, theirs = (one.simulation.world.scenario for one in (env, other))
    assert theirs.phase is Phase.LATER
    assert type(theirs.step) is np.float32
    assert (theirs.step, theirs.lines) == (ours.step, ours.lines)
    assert len(theirs.lines) == 3


class OwnGenerator(Keeping):
    """Draws from a generator of its own."""

    make: Any = None

    def prepare(self, world: World) -> None:
        self.generator = type(self).make()


@pytest.mark.parametrize(
    "make", [lambda: random.Random(0), lambda: np.random.default_rng(0), torch.Generator, lambda: iter([1, 2])]
)
def test_what_cannot_be_read_is_named_and_ends_episodes_at_checkpoints(make: Callable[[], object]) -> None:
    env = build(type("Own", (OwnGenerator,), {"make": staticmethod(make)}))
    assert not env.state_is_captured
    with pytest.warns(UserWarning, match=r"keeps env\.scenario\.generator out of reach"):
        env.state_dict()
    with pytest.raises(TraceError, match=r"out of reach: env\.scenario\.generator"):
        _ = env.tensor_state
    reset_first(env)
    assert env.python_state == ("env.scenario.generator",)
    collector = RolloutCollector(env, frames_per_batch=2 * N_ENVS)
    collector.rollout()
    with pytest.warns(UserWarning, match="out of reach"):
        assert collector.state_dict()["next_root"] is None


def test_vmas_own_scenarios_can_be_read() -> None:
    for name in ("navigation", "simple_tag", "football"):
        env = VmasEnv(name, num_envs=2)
        assert env.state_is_captured
        env.state_is_captured = False  # as a task does whose env is a user's own
        assert not env.state_is_captured
