"""VMAS worlds in checkpoints: what a file may hold, views, names of objects, and states of other envs."""

from __future__ import annotations

import collections
import enum
import functools
import io
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import vmas
from torch import Tensor, nn
from vmas.simulator.core import Agent, World

from ctde_kit.envs.vmas import VmasEnv
from ctde_kit.graph import TraceError
from ctde_kit.protocols import StateDict
from tests.envs.vmas.keeping import N_ENVS, Keeping, build, reset_first, rewards

FOLDERS = [Path(vmas.__file__).parent / "scenarios" / folder for folder in ("", "debug", "mpe")]
SHIPPED = sorted({path.stem for folder in FOLDERS for path in folder.glob("*.py") if path.stem != "__init__"})


class Level(enum.IntEnum):
    LOW = 1


class Colors(enum.Flag):
    RED = 1
    BLUE = 2


class Phase(enum.Enum):
    FIRST = 1
    LATER = 2


class Sizes(NamedTuple):
    width: int
    height: int


class Vector(tuple[Any, ...]):
    pass


def through_a_file(state: StateDict) -> StateDict:
    """As a checkpoint holds it: tensors and plain values alone."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def partial_reset(env: VmasEnv, mask: list[bool]) -> None:
    env.reset(env.full_done_spec.zero().set("_reset", torch.tensor(mask).reshape(-1, 1)))


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_scenarios_go_on_from_a_file(name: str) -> None:
    one, other = (VmasEnv(name, num_envs=3, seed=seed, max_steps=4) for seed in (0, 7))
    torch.manual_seed(0)
    for env in (one, other):
        env.reset()
        env.step(env.rand_action())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those that keep a value for all environments say so
        partial_reset(one, [True, False, True])
        other.load_state_dict(through_a_file(one.state_dict()))
        for mask in ([False, True, False], None):
            action = one.rand_action()
            ours, theirs = (env.step(action.clone())["next"] for env in (one, other))
            for key, value in ours.items(True, True):
                assert torch.equal(value.nan_to_num(7), theirs[key].nan_to_num(7)), key
            if mask is not None:
                partial_reset(one, mask)
                partial_reset(other, mask)


class Held(Keeping):
    """Keeps one value."""

    value: Any = None

    def prepare(self, world: World) -> None:
        self.held = type(self).value


def holding(value: object) -> VmasEnv:
    return build(type("Held", (Held,), {"value": value}))


@pytest.mark.parametrize(
    "value",
    [
        np.float64(1.5),
        np.int32(3),
        Level.LOW,
        Colors.RED | Colors.BLUE,
        Sizes(1, 2),
        Vector([1, 2]),
        torch.Size([3]),
        frozenset({1, 2}),
        {frozenset({"a", "b"}): 1},
        {np.int64(3): 4},
        {0: "zero", "0": "text"},
        (1, ("a", None, 2.5, 1j, b"x")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_of_all_kinds_go_through_a_file(value: object) -> None:
    env, other = holding(value), holding(value)
    assert env.state_is_captured
    other.load_state_dict(through_a_file(env.state_dict()))
    held = other.simulation.world.scenario.held
    assert (type(held), held) == (type(value), value)


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    "value",
    [np.str_("a"), Text("a"), {Phase.FIRST}, functools.partial(max, torch.zeros(2)), {object(): 1}],
    ids=["numpy's text", "text", "a set of members", "a partial function", "a key that is an object"],
)
def test_what_a_file_cannot_hold_is_named(value: object) -> None:
    env = holding(value)
    assert not env.state_is_captured
    with pytest.warns(UserWarning, match=r"keeps env\.scenario\.held\S* out of reach"):
        through_a_file(env.state_dict())


def test_what_has_no_state_is_not_in_the_way() -> None:
    assert holding(nn.GRU(2, 2)).state_is_captured  # it holds weak references to its weights


def counting_in(hold: Callable[[World], dict[Any, Tensor]]) -> type[Keeping]:
    """Counts steps in each tensor of a dictionary, faster in later ones."""

    class Counting(Keeping):
        def prepare(self, world: World) -> None:
            self.counts = hold(world)

        def begin(self, env_index: int | None) -> None:
            for count in self.counts.values():
                count[slice(None) if env_index is None else env_index] = 0

        def advance(self) -> None:
            for number, key in enumerate(self.counts, start=1):
                self.counts[key] = self.counts[key] + number

        def seen(self, agent: Agent) -> Tensor:
            return sum(self.counts.values(), torch.zeros(N_ENVS))

    return Counting


@pytest.mark.parametrize(
    "keys",
    [
        lambda world: list(Phase),
        lambda world: world.landmarks[:2],
        lambda world: world.agents,
        lambda world: [0, "0"],
        lambda world: [Agent, World],
    ],
    ids=["members", "landmarks", "agents", "a number and its text", "classes"],
)
def test_entries_are_told_apart_by_their_keys(keys: Callable[[World], list[Any]]) -> None:
    scenario = counting_in(lambda world: {key: torch.zeros(world.batch_dim) for key in keys(world)})
    env, other = build(scenario), build(scenario)
    rewards(env, 2)
    reset_first(env)
    assert env.python_state == ()
    assert rewards(env) == [[3, 3], [9, 9], [9, 9]]
    other.load_state_dict(through_a_file(env.state_dict()))
    assert rewards(other) == rewards(env) == [[6, 6], [12, 12], [12, 12]]


class Goal(Keeping):
    """One landmark of three is the goal."""

    def begin(self, env_index: int | None) -> None:
        for number, landmark in enumerate(self.world.landmarks):
            landmark.set_pos(torch.full((1, 2), float(number)), batch_index=None)
        if env_index is None:
            self.goal = random.choice(self.world.landmarks)
            self.left = list(self.world.landmarks)

    def advance(self) -> None:
        self.left = self.left[1:]

    def seen(self, agent: Agent) -> Tensor:
        return self.goal.state.pos[:, 0] + 10 * len(self.left)


@pytest.mark.parametrize("seed", range(4))
def test_a_goal_is_one_of_the_same_landmarks_after_loading(seed: int) -> None:
    env, other = build(Goal, seed), build(Goal, seed + 10)
    rewards(env)
    other.load_state_dict(through_a_file(env.state_dict()))
    assert rewards(other) == rewards(env)
    assert [landmark.name for landmark in other.world.landmarks] == ["x", "y", "z"]


def test_a_goal_that_changes_is_named_and_nothing_is_changed() -> None:
    env = build(Goal)
    with pytest.raises(TraceError, match=r"changing state in Python: env\.scenario\.(goal|left)"):
        _ = env.tensor_state
    assert [landmark.name for landmark in env.world.landmarks] == ["x", "y", "z"]


class Views(Keeping):
    """Each agent's score is a column of one tensor."""

    def prepare(self, world: World) -> None:
        self.all = torch.zeros(world.batch_dim, 2)
        for number, agent in enumerate(world.agents):
            agent.score = self.all[:, number]

    def begin(self, env_index: int | None) -> None:
        self.all[slice(None) if env_index is None else env_index] = 0

    def advance(self) -> None:
        self.all += 1

    def seen(self, agent: Agent) -> Tensor:
        score: Any = agent
        return score.score.clone()


class ArrayViews(Views):
    """The same, and an array that shows the tensor, too."""

    def prepare(self, world: World) -> None:
        super().prepare(world)
        self.array = self.all.numpy()

    def advance(self) -> None:
        self.array += 1


@pytest.mark.parametrize(("scenario", "found"), [(Views, ()), (ArrayViews, ("env.scenario.array",))])
def test_views_stay_views(scenario: type[Views], found: tuple[str, ...]) -> None:
    env, other = build(scenario), build(scenario)
    rewards(env, 2)
    reset_first(env)
    assert env.python_state == found
    assert rewards(env) == [[1, 1], [3, 3], [3, 3]]
    other.load_state_dict(through_a_file(env.state_dict()))
    assert rewards(other) == rewards(env) == [[2, 2], [4, 4], [4, 4]]


def test_steps_that_rely_on_views_are_not_compiled() -> None:
    env = build(Views)
    rewards(env, 2)
    with pytest.raises(TraceError, match=r"a view of it: env\.world\._agents"):
        _ = env.tensor_state
    assert rewards(env) == [[3, 3], [3, 3], [3, 3]]


def test_where_torch_counts_no_writes_the_numbers_show_that_a_step_relies_on_views() -> None:
    with torch.inference_mode():
        env = build(Views)
        with pytest.raises(TraceError, match=r"a view of it: \S+ depends on that"):
            _ = env.tensor_state


class Shown(Keeping):
    """An expanded view, a leaf that needs a gradient, and what is not a number."""

    def prepare(self, world: World) -> None:
        self.base = torch.zeros(world.batch_dim, 1)
        self.wide = self.base.expand(-1, 2)
        self.scale = torch.ones(world.batch_dim, requires_grad=True)
        self.unknown, self.number = torch.full((2,), float("nan")), float("nan")

    @torch.no_grad()
    def begin(self, env_index: int | None) -> None:
        rows = slice(None) if env_index is None else env_index
        self.base[rows] = 0
        self.scale[rows] = 1

    @torch.no_grad()
    def advance(self) -> None:
        self.base += 1
        self.scale += 1

    def seen(self, agent: Agent) -> Tensor:
        return self.wide.sum(1) + 10 * self.scale.detach()


def test_tensors_that_cannot_be_written_as_others_are_reset_in_one_batch() -> None:
    env = build(Shown)
    rewards(env, 2)
    reset_first(env)
    assert env.python_state == ()
    assert rewards(env) == [[22, 22], [46, 46], [46, 46]]


class History(Keeping):
    """A list that full resets empty, and partial ones do not."""

    def prepare(self, world: World) -> None:
        self.history: list[Tensor] = []

    def begin(self, env_index: int | None) -> None:
        if env_index is None:
            self.history.clear()
        for step in self.history:
            step[env_index] = 0

    def advance(self) -> None:
        self.history.append(torch.ones(self.world.batch_dim))

    def seen(self, agent: Agent) -> Tensor:
        return torch.stack(self.history).sum(0)


def test_what_a_full_reset_removes_is_found() -> None:
    env = build(History)
    rewards(env, 2)
    reset_first(env)
    assert env.python_state == ("env.scenario.history.0", "env.scenario.history.1")
    assert rewards(env) == [[1, 1], [3, 3], [3, 3]]


class Replaced(Keeping):
    """A function of its own goal, which each full reset draws, and a Counter."""

    def prepare(self, world: World) -> None:
        self.tally = collections.Counter(none=0, less=-2)

    def begin(self, env_index: int | None) -> None:
        if env_index is None:
            goal = torch.rand(())
            self.goal = lambda: goal

    def seen(self, agent: Agent) -> Tensor:
        return self.goal().expand(N_ENVS)


def test_a_function_that_a_full_reset_replaces_is_found() -> None:
    env = build(Replaced)
    before = rewards(env)
    reset_first(env)
    assert env.python_state == ("env.scenario.goal",)
    assert rewards(env) == before
    tally = env.simulation.world.scenario.tally
    assert dict(tally) == {"none": 0, "less": -2}


class LaterPhase(Keeping):
    """Has a phase once a step was made."""

    def prepare(self, world: World) -> None:
        self.phase: Phase | None = None
        self.steps = torch.zeros(world.batch_dim)

    def advance(self) -> None:
        self.phase = Phase.FIRST
        self.steps += 1

    def seen(self, agent: Agent) -> Tensor:
        return self.steps.clone()


def navigation(n_envs: int, n_agents: int) -> VmasEnv:
    env = VmasEnv("navigation", num_envs=n_envs, seed=0, scenario_kwargs={"n_agents": n_agents})
    env.reset()
    return env


@pytest.mark.parametrize(
    ("saved", "loaded", "message"),
    [
        (lambda: navigation(3, 2), lambda: navigation(3, 3), "has .3, 2, 18. in .*, and this env 3 agents in 'agents'"),
        (lambda: navigation(3, 3), lambda: navigation(3, 2), "has .3, 3, 18. in .*, and this env 2 agents in 'agents'"),
        (lambda: navigation(4, 2), lambda: navigation(3, 2), "of 4 environments, and this env has 3"),
        (lambda: navigation(1, 2), lambda: navigation(3, 2), "of 1 environments, and this env has 3"),
        (lambda: build(LaterPhase), lambda: build(LaterPhase), "'env.scenario.phase', a value of a class"),
    ],
    ids=["fewer agents", "more agents", "more environments", "one environment", "a class of one's own"],
)
def test_a_state_that_does_not_fit_changes_nothing(
    saved: Callable[[], VmasEnv], loaded: Callable[[], VmasEnv], message: str
) -> None:
    one, other, twin = saved(), loaded(), loaded()
    one.step(one.full_action_spec.zero())
    with pytest.raises(ValueError, match=message):
        other.load_state_dict(one.state_dict())
    ours, theirs = (env.step(env.full_action_spec.zero())["next"] for env in (other, twin))
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items(True, True))


class NewViews(Views):
    """Full resets make the views anew."""

    def begin(self, env_index: int | None) -> None:
        super().begin(env_index)
        if env_index is None:
            for number, agent in enumerate(self.world.agents):
                agent.score = self.all[:, number]


def test_views_that_a_reset_makes_anew_stay_views() -> None:
    env = build(NewViews)
    rewards(env, 2)
    reset_first(env)
    assert env.python_state == ()
    assert rewards(env) == [[1, 1], [3, 3], [3, 3]]
    assert rewards(env) == [[2, 2], [4, 4], [4, 4]]


class ShownTwice(Keeping):
    """One number per environment, shown twice by a tensor that nobody else holds, and one for all of them."""

    of_all = False

    def prepare(self, world: World) -> None:
        self.twice = torch.zeros(world.batch_dim, 1).expand(-1, 2)
        if self.of_all:
            self.same = torch.zeros(1, 1).expand(world.batch_dim, 1)

    def begin(self, env_index: int | None) -> None:
        self.twice[slice(None) if env_index is None else env_index, 0] = 0
        if self.of_all and env_index is None:
            self.same[0] = torch.rand(())

    def advance(self) -> None:
        self.twice[:, 0] += 1

    def seen(self, agent: Agent) -> Tensor:
        return self.twice.sum(1)


class ShownByAll(ShownTwice):
    of_all = True


@pytest.mark.parametrize(("scenario", "found"), [(ShownTwice, ()), (ShownByAll, ("env.scenario.same",))])
def test_numbers_that_are_shown_several_times_are_kept(scenario: type[ShownTwice], found: tuple[str, ...]) -> None:
    env = build(scenario)
    rewards(env, 2)
    same = env.simulation.world.scenario
    before = same.same.clone() if found else None
    reset_first(env)
    assert env.python_state == found
    assert rewards(env) == [[2, 2], [6, 6], [6, 6]]
    assert before is None or torch.equal(same.same, before)


class FromConstant(Keeping):
    """Full resets take a column of a constant, which steps then replace."""

    def prepare(self, world: World) -> None:
        self.constant = torch.full((world.batch_dim, 1), 5.0)
        self.count = torch.zeros(world.batch_dim)

    def begin(self, env_index: int | None) -> None:
        if env_index is None:
            self.count = self.constant[:, 0]

    def advance(self) -> None:
        self.count = self.count + 1

    def seen(self, agent: Agent) -> Tensor:
        return self.count.clone()


def test_a_constant_that_a_reset_shows_is_not_written_to() -> None:
    env = build(FromConstant)
    rewards(env, 2)
    reset_first(env)
    assert rewards(env) == [[6, 6], [8, 8], [8, 8]]
    scenario: Any = env.simulation.world.scenario
    assert scenario.constant.flatten().tolist() == [5, 5, 5]
