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


def test_a_scenarios_own_mistake_stays_what_it_is() -> None:
    with pytest.raises(AttributeError, match="'float' object has no attribute 'clone'"):
        VmasEnv(Mistaken, num_envs=3).rollout(2)


def test_an_argument_that_is_given_twice_is_refused() -> None:
    with pytest.raises(UserError, match="'n_agents' is given twice"):
        VmasEnv("navigation", num_envs=2, n_agents=3, scenario_kwargs={"n_agents": 2})
