"""Scenarios of a user's own: classes from anywhere, and what is known of the arguments that they read."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from vmas.scenarios import load
from vmas.simulator.core import Agent, Sphere, World
from vmas.simulator.scenario import BaseScenario

from ctde_kit.envs.vmas import VmasEnv
from ctde_kit.errors import UserError

SOURCE = """
from vmas.simulator.scenario import BaseScenario
class Mine(BASE):
    def make_world(self, batch_dim, device, **kwargs):
        self.speed = kwargs.get("speed", 1.0)
        return super().make_world(batch_dim, device)
"""


class Plain(BaseScenario):
    """Two agents that observe where they are."""

    def make_world(self, batch_dim: int, device: torch.device, **params: Any) -> World:
        self.speed = params.pop("speed", 1.0)
        world = World(batch_dim, device)
        for index in range(2):
            world.add_agent(Agent(f"agent_{index}", shape=Sphere(0.1)))
        return world

    def reset_world_at(self, env_index: int | None = None) -> None:
        for agent in self.world.agents:
            agent.set_pos(torch.zeros(2), env_index)

    def observation(self, agent: Agent) -> torch.Tensor:
        return agent.state.pos

    def reward(self, agent: Agent) -> torch.Tensor:
        return -agent.state.pos.norm(dim=-1)


class Updating(Plain):
    def make_world(self, batch_dim: int, device: torch.device, **kwargs: Any) -> World:
        self.options = {"n_agents": 2}
        self.options.update(kwargs)
        return super().make_world(batch_dim, device)


class HandingOn(Plain):
    def make_world(self, batch_dim: int, device: torch.device, **kwargs: Any) -> World:
        self.configure(**kwargs)
        return super().make_world(batch_dim, device)

    def configure(self, width: float = 1.0, **rest: Any) -> None:
        self.width, self.height = width, rest.get("height", 1.0)


class Building(Plain):
    def make_world(self, batch_dim: int, device: torch.device, **kwargs: Any) -> World:
        return self.build(batch_dim, device, **kwargs)

    def build(self, batch_dim: int, device: torch.device, height: float = 1.0) -> World:
        self.height = height
        return super().make_world(batch_dim, device)


class Options(Plain):
    def make_world(self, batch_dim: int, device: torch.device, **kwargs: Any) -> World:
        self.set_up(kwargs)
        return super().make_world(batch_dim, device)

    def set_up(self, options: dict[str, Any]) -> None:
        self.height = options.get("height", 1.0)


class Mixin:
    def read(self, options: dict[str, Any]) -> None:
        self.options = options


class Mixed(Mixin, Plain):
    def make_world(self, batch_dim: int, device: torch.device, **kwargs: Any) -> World:
        self.read(kwargs)
        return super().make_world(batch_dim, device)


def reading(function: Callable[..., World]) -> Callable[..., World]:
    """A decorator that takes an argument for itself."""

    @functools.wraps(function)
    def wrapped(self: Any, batch_dim: int, device: torch.device, **kwargs: Any) -> World:
        self.extra = kwargs.pop("extra", 3)
        return function(self, batch_dim, device, **kwargs)

    return wrapped


class Decorated(Plain):
    @reading
    def make_world(self, batch_dim: int, device: torch.device, **kwargs: Any) -> World:
        return super().make_world(batch_dim, device, **kwargs)


class Wrong(Plain):
    """Observes flags, and is rewarded in whole numbers."""

    def observation(self, agent: Agent) -> torch.Tensor:
        return agent.state.pos >= 0

    def reward(self, agent: Agent) -> torch.Tensor:
        return (agent.state.pos.norm(dim=-1) > 1).long()


def renamed(cls: type) -> type:
    """A decorator that makes another class."""
    return type("Renamed", (cls,), {"observation": lambda self, agent: agent.state.vel})


def executed() -> type[BaseScenario]:
    names: dict[str, Any] = {"BASE": Plain}
    exec(compile(SOURCE, "<cell 1>", "exec"), names)
    return names["Mine"]


def nested() -> type[BaseScenario]:
    class Mine(Plain):
        def make_world(self, batch_dim: int, device: torch.device, **kwargs: Any) -> World:
            self.depth = kwargs.get("depth", 1)
            return super().make_world(batch_dim, device)

    return Mine


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: Plain, "speed"),
        (lambda: HandingOn, "width"),
        (lambda: HandingOn, "height"),
        (lambda: Building, "height"),
        (nested, "depth"),
        (nested, "speed"),
    ],
)
def test_what_is_read_is_known(make: Callable[[], type[BaseScenario]], argument: str) -> None:
    scenario = make()
    assert VmasEnv(scenario, num_envs=2, scenario_kwargs={argument: 2.0}).reset().batch_size == (2,)
    with pytest.raises(
        UserError, match=rf"'{argument[:-1]}' is never read by {scenario.__name__}: did you mean .*{argument}"
    ):
        VmasEnv(scenario, num_envs=2, scenario_kwargs={argument[:-1]: 2.0})


@pytest.mark.parametrize("make", [executed, lambda: Updating, lambda: renamed(Plain), lambda: Options, lambda: Mixed])
def test_what_cannot_be_read_is_not_checked(make: Callable[[], type[BaseScenario]]) -> None:
    env = VmasEnv(make(), num_envs=3, seed=0, anything=5)
    assert env.rollout(4)["next", "agents", "reward"].shape == (3, 4, 2, 1)


def test_a_class_is_built_anew_by_each_env() -> None:
    first, second = VmasEnv(Plain, num_envs=2), VmasEnv(Plain, num_envs=2)
    assert first.simulation.world.scenario is not second.simulation.world.scenario
    assert (
        VmasEnv(load("navigation.py").Scenario, num_envs=2, n_agents=2).reset()["agents", "observation"].shape[1] == 2
    )


def test_an_argument_of_a_decorator_is_taken() -> None:
    assert VmasEnv(Decorated, num_envs=2, extra=7).simulation.world.scenario.extra == 7


def test_an_object_is_one_envs() -> None:
    scenario = Plain()
    env = VmasEnv(scenario, num_envs=2, seed=0)
    with pytest.raises(UserError, match=r"an object without a world, found a Plain .*give its class, or a new object"):
        VmasEnv(scenario, num_envs=3)
    env.reset()
    again = copy.deepcopy(env)
    actions = env.rand_action()
    assert torch.equal(*(one.step(actions.clone())["next", "agents", "observation"] for one in (env, again)))
    assert again.simulation.world.scenario.world is not env.simulation.world.scenario.world


def test_flags_and_whole_numbers_are_floats() -> None:
    data = VmasEnv(Wrong, num_envs=2).rollout(3)
    assert data["agents", "observation"].dtype == data["next", "agents", "reward"].dtype == torch.float32
    assert data["agents", "observation"][:, 0].eq(1).all()


def test_a_class_of_something_else_is_refused() -> None:
    with pytest.raises(
        UserError, match="expected a name, or a class or object of VMAS's BaseScenario, found <class 'dict'>"
    ):
        VmasEnv(dict, num_envs=2)


class Shapes(Plain):
    """Gives what a test asks for in place of one method's value."""

    method, value = "", torch.zeros(0)

    def observation(self, agent: Agent) -> torch.Tensor:
        return self.value if self.method == "observation" and agent.name == "agent_1" else super().observation(agent)

    def reward(self, agent: Agent) -> torch.Tensor:
        return self.value if self.method == "reward" and agent.name == "agent_1" else super().reward(agent)

    def done(self) -> torch.Tensor:
        return self.value if self.method == "done" else super().done()

    def info(self, agent: Agent) -> dict[str, torch.Tensor]:
        return {"speed": self.value} if self.method == "info" else {}


@pytest.mark.parametrize(
    ("method", "value", "message"),
    [
        ("reward", torch.zeros(()), r"reward of agent 'agent_1': expected a tensor \[3\], .*, found a tensor \[\]"),
        ("reward", torch.zeros(4), r"reward of agent 'agent_1': expected a tensor \[3\], .*, found a tensor \[4\]"),
        ("observation", torch.zeros(4, 2), r"observation of agent 'agent_1': expected a tensor \[3, features\], found"),
        ("done", torch.zeros(3, 2, dtype=torch.bool), r"done: expected a tensor \[3\], .*, found a tensor \[3, 2\]"),
    ],
)
def test_values_of_other_shapes_are_named(method: str, value: Any, message: str) -> None:
    scenario = type("Shaped", (Shapes,), {"method": method, "value": value})
    with pytest.raises(UserError, match=f"scenario 'Shaped': {message}"):
        VmasEnv(scenario, num_envs=3).rollout(2)


@pytest.mark.parametrize("method", ["observation", "reward", "done", "info"])
@pytest.mark.parametrize(("value", "found"), [(1.0, "float"), (None, "NoneType")])
def test_values_that_are_no_tensors_are_named(method: str, value: object, found: str) -> None:
    scenario = type("Shaped", (Shapes,), {"method": method, "value": value})
    message = f"scenario 'Shaped': .*expected (a tensor|tensors with one row for each of 3).* found {found}; return"
    with pytest.raises(UserError, match=message):
        VmasEnv(scenario, num_envs=3, info=True).rollout(2)


class Mistaken(Plain):
    def reward(self, agent: Agent) -> torch.Tensor:
        number: Any = 1.0
        return number.clone()


class Placing(Plain):
    def reward(self, agent: Agent) -> torch.Tensor:
        place: Any = [0.0, 0.0]
        agent.state.pos = place
        return super().reward(agent)


@pytest.mark.parametrize(("scenario", "attribute"), [(Mistaken, "clone"), (Placing, "shape")])
def test_a_scenarios_own_mistake_stays_what_it_is(scenario: type[Plain], attribute: str) -> None:
    with pytest.raises(AttributeError, match=f"object has no attribute '{attribute}'"):
        VmasEnv(scenario, num_envs=3).rollout(2)


class Growing(Plain):
    """Later on agent_1 sees and says more than agent_0."""

    def make_world(self, batch_dim: int, device: torch.device, **params: Any) -> World:
        self.steps = 0
        return super().make_world(batch_dim, device, **params)

    def observation(self, agent: Agent) -> torch.Tensor:
        return torch.cat([agent.state.pos] * (1 + self.grows("observation", agent)), -1)

    def info(self, agent: Agent) -> dict[str, torch.Tensor]:
        speed = {"speed": agent.state.vel.norm(dim=-1)}
        return {**speed, "size": speed["speed"]} if self.grows("info", agent) else speed

    def grows(self, method: str, agent: Agent) -> bool:
        return self.growing == method and self.steps > 1 and agent.name == "agent_1"

    def post_step(self) -> None:
        self.steps += 1


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (
            "observation",
            r"observation of agent 'agent_1': expected a tensor \[3, 2\], as of .* found a tensor \[3, 4\]",
        ),
        (
            "info",
            "info of agent 'agent_1': expected speed, as of the others of group 'agents', found speed, size; return",
        ),
    ],
)
def test_agents_of_a_group_that_differ_later_are_named(method: str, message: str) -> None:
    env = VmasEnv(type("Grows", (Growing,), {"growing": method}), num_envs=3, info=True)
    with pytest.raises(UserError, match=f"scenario 'Grows': {message}"):
        env.rollout(4)


@pytest.mark.parametrize("dtype", [torch.bool, torch.long, torch.float])
def test_done_may_be_zeros_and_ones(dtype: torch.dtype) -> None:
    scenario = type("Ends", (Shapes,), {"method": "done", "value": torch.tensor([1, 0, 1]).to(dtype)})
    env = VmasEnv(scenario, num_envs=3)
    step = env.step(env.rand_action(env.reset()))["next"]
    for name in ("terminated", "done"):
        assert step[name].dtype == torch.bool
        assert step[name][:, 0].tolist() == [True, False, True]
    env.reset(step.set("_reset", step["done"]))


def test_an_argument_that_is_given_twice_is_refused() -> None:
    with pytest.raises(UserError, match="'n_agents' is given twice"):
        VmasEnv("navigation", num_envs=2, n_agents=3, scenario_kwargs={"n_agents": 2})
