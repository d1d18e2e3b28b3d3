"""Scenarios that point to another of their objects as they go on, and state that is easily parted from its place."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from vmas.simulator.core import Agent, World

import ctde_kit as ck
from ctde_kit.collectors import RolloutCollector
from ctde_kit.envs.vmas import VmasEnv
from ctde_kit.envs.vmas.tensor_copies import copies_of
from tests.envs.vmas.keeping import N_ENVS, Keeping, build, reset_first, rewards


def through_a_file(env: VmasEnv) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(env.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


class Phase:
    def __init__(self, pay: float) -> None:
        self.pay = pay


class Phases(Keeping):
    """The phase is another one of the same two after each step."""

    def prepare(self, world: World) -> None:
        self.phase: Any = None
        self.phases = [Phase(1), Phase(2)]

    def begin(self, env_index: int | None) -> None:
        self.phase = self.phases[0]

    def advance(self) -> None:
        self.phase = self.phases[1 - self.phases.index(self.phase)]
        self.phase.pay += 10

    def seen(self, agent: Agent) -> Tensor:
        return torch.full((N_ENVS,), self.phase.pay)


class Targets(Keeping):
    """Each agent has one of the scenario's targets, which is drawn."""

    def prepare(self, world: World) -> None:
        self.targets = [Phase(number) for number in range(5)]

    def begin(self, env_index: int | None) -> None:
        for agent in self.world.agents:
            agent.target = self.targets[int(torch.randint(5, ()))]

    def seen(self, agent: Agent) -> Tensor:
        agent.target.pay += 10
        return torch.full((N_ENVS,), float(agent.target.pay))


@pytest.mark.parametrize("scenario", [Phases, Targets])
@pytest.mark.parametrize("seed", range(4))
def test_which_of_its_objects_a_scenario_points_to_is_kept(scenario: type[Keeping], seed: int) -> None:
    env, other = build(scenario), build(scenario, seed=seed + 1)
    rewards(env, 3)
    rewards(other, seed)
    other.load_state_dict(through_a_file(env))
    for _ in range(2):
        assert rewards(other) == rewards(env)


class Found(Keeping):
    """A landmark's column of a table, which is only written to after the agents have moved."""

    def prepare(self, world: World) -> None:
        self.found = torch.zeros(N_ENVS, 3)
        for number, landmark in enumerate(world.landmarks):
            landmark.found = self.found[:, number]
        self.steps = torch.zeros(N_ENVS)

    def begin(self, env_index: int | None) -> None:
        self.steps.zero_()
        self.found.zero_()

    def advance(self) -> None:
        self.steps = self.steps + 1
        self.found[:, 0] += (self.steps > 4).float()

    def seen(self, agent: Agent) -> Tensor:
        return sum((landmark.found for landmark in self.world.landmarks), torch.zeros(N_ENVS))


class Cleared(Found):
    """The same, written to by resets alone."""

    def advance(self) -> None: ...


@pytest.mark.parametrize("scenario", [Found, Cleared])
def test_a_view_that_comes_to_matter_later_keeps_a_step_eager(
    scenario: type[Keeping], caplog: pytest.LogCaptureFixture
) -> None:
    env = VmasEnv(scenario, num_envs=N_ENVS, seed=0, compile_step=True)
    env.reset()
    assert rewards(env, 6) == rewards(build(scenario), 6)
    assert not env.compile_step
    assert "keeps one tensor's numbers in another one, a view of it" in caplog.text


class Total(Keeping):
    """One number for the whole batch, which stays the same for some steps."""

    def prepare(self, world: World) -> None:
        self.total, self.steps = torch.zeros(()), torch.zeros(N_ENVS)

    def advance(self) -> None:
        self.steps = self.steps + 1
        self.total = self.total + (self.steps > 4).sum()

    def seen(self, agent: Agent) -> Tensor:
        return self.total.expand(N_ENVS)


class TotalInPlace(Total):
    def advance(self) -> None:
        self.steps = self.steps + 1
        self.total += (self.steps > 4).sum()


class TotalOfEpisodes(Total):
    def begin(self, env_index: int | None) -> None:
        if env_index is None:
            self.total, self.steps = torch.zeros(()), torch.zeros(N_ENVS)


@pytest.mark.parametrize("scenario", [Total, TotalInPlace, TotalOfEpisodes])
def test_what_a_step_changes_only_later_is_part_of_the_state(
    scenario: type[Keeping], caplog: pytest.LogCaptureFixture
) -> None:
    env = VmasEnv(scenario, num_envs=N_ENVS, seed=0, compile_step=True)
    env.reset()
    assert [rewards(env)[0][0] for _ in range(7)] == [0, 0, 0, 0, 3, 6, 9]
    assert env.compile_step == (scenario is not TotalOfEpisodes)
    assert ("a reset changes env.scenario.total, one value for the whole batch" in caplog.text) != env.compile_step


def test_a_view_that_comes_to_matter_later_keeps_a_rollout_eager(caplog: pytest.LogCaptureFixture) -> None:
    paid = []
    for compiled in (False, True):
        env = VmasEnv(Found, num_envs=N_ENVS, seed=0)
        group = ck.TeamSpec.from_env(env)["agents"]
        network = ck.MultiAgentMLP(group.observation_dim, group.action.n_parameters, n_agents=group.n_agents)
        actor = ck.TeamPolicy({"agents": ck.MultiAgentActor(group, ck.own_observation(group), network)})
        collector = RolloutCollector(env, actor, frames_per_batch=8 * N_ENVS, compile=compiled)
        (batch,) = [batch for batch, _ in zip(collector, range(1), strict=False)]
        paid.append(batch["next", "agents", "reward"][0, :, 0, 0].tolist())
    assert paid[0] == paid[1] == [0, 0, 0, 0, 1, 2, 3, 4]
    assert "the rollout is not compiled: keeps one tensor's numbers in another one" in caplog.text


class Log(Keeping):
    """A dictionary that remembers the order beside its entries."""

    def prepare(self, world: World) -> None:
        self.log: OrderedDict[str, float] = OrderedDict(start=0.0)

    def advance(self) -> None:
        self.log[f"step {len(self.log)}"] = 1.0

    def begin(self, env_index: int | None) -> None:
        if env_index is None:
            self.log.clear()
            self.log["start"] = 0.0

    def seen(self, agent: Agent) -> Tensor:
        return torch.full((N_ENVS,), sum(self.log.values()))


def test_an_ordered_dictionary_stays_whole() -> None:
    env, other = build(Log), build(Log)
    rewards(env, 3)
    reset_first(env)
    log = env.simulation.world.scenario.log
    assert list(log) == list(log.keys()) == ["start", "step 1", "step 2", "step 3"]
    other.load_state_dict(through_a_file(env))
    assert rewards(other, 2) == rewards(env, 2)
    assert list(other.simulation.world.scenario.log.items()) == list(log.items())


def near() -> None: ...


def far() -> None: ...


class Weighted(Keeping):
    """Weights by function, by class and by a method of its own."""

    def prepare(self, world: World) -> None:
        self.weights: dict[Callable[[], None] | type, Tensor] = {key: torch.zeros(N_ENVS) for key in self.keys()}

    def keys(self) -> list[Any]:
        return [near, far, Phase, len]

    def advance(self) -> None:
        for number, weight in enumerate(self.weights.values()):
            weight += number

    def seen(self, agent: Agent) -> Tensor:
        return self.weights[far] + 10 * self.weights[Phase] + 100 * self.weights[len]


class WeightedByMethod(Weighted):
    def keys(self) -> list[Any]:
        return [*super().keys(), self.prepare, lambda: None]


def test_keys_are_known_by_their_names() -> None:
    env, other = build(Weighted), build(Weighted)
    rewards(env, 2)
    saved = through_a_file(env)
    names = [key for _, _, key, _ in saved["world"]["entries"] if key[0] == "named"]
    assert names == [("named", name) for name in ("near", "far", "Phase", "len")]
    other.load_state_dict(saved)
    assert rewards(other) == rewards(env)


def test_keys_without_a_name_are_said_to_be_out_of_reach() -> None:
    with pytest.warns(
        UserWarning, match=r"keeps env\.scenario\.weights\.\w+.* out of reach, and a saved state lacks it"
    ):
        build(WeightedByMethod).state_dict()


class Network(Keeping):
    """A scenario with a network, whose parameters an optimizer could know."""

    def prepare(self, world: World) -> None:
        self.net = nn.Linear(2, 1)

    def seen(self, agent: Agent) -> Tensor:
        return self.net(torch.ones(N_ENVS, 2)).squeeze(-1).detach()


def test_parameters_stay_parameters() -> None:
    env, other = build(Network), build(Network)
    before = list(other.simulation.world.scenario.net.parameters())
    assert rewards(env) != rewards(other)
    other.load_state_dict(through_a_file(env))
    after = list(other.simulation.world.scenario.net.parameters())
    assert all(one is another and one.requires_grad for one, another in zip(before, after, strict=True))
    assert rewards(env) == rewards(other)


class Wide(Keeping):
    """More features than the same scenario has elsewhere."""

    features = 4

    def prepare(self, world: World) -> None:
        self.count = torch.zeros(N_ENVS)

    def advance(self) -> None:
        self.count += 1

    def observation(self, agent: Agent) -> Tensor:
        return torch.zeros(N_ENVS, self.features)


class Narrow(Wide):
    features = 3


def test_a_state_with_other_observations_changes_nothing() -> None:
    env, other = build(Wide), build(Narrow)
    rewards(env, 3)
    with pytest.raises(ValueError, match=r"has \[3, 2, 4\] in \('agents', 'observation'\), and this env \[3, 2, 3\]"):
        other.load_state_dict(env.state_dict())
    assert other.simulation.world.scenario.count.tolist() == [0, 0, 0]


class Full(Wide):
    """A scenario whose second reset raises after it has begun to write."""

    def begin(self, env_index: int | None) -> None:
        self.count.zero_()
        self.resets = getattr(self, "resets", 0) + 1
        if self.resets > 2:
            raise RuntimeError("no room")


def test_a_partial_reset_that_raises_changes_nothing() -> None:
    env = VmasEnv(Full, num_envs=N_ENVS, seed=0)
    env.simulation.world.scenario.resets = 1
    env.reset()
    rewards(env, 3)
    with pytest.raises(RuntimeError, match="no room"):
        reset_first(env)
    assert env.simulation.world.scenario.count.tolist() == [3, 3, 3]
    assert env.simulation.elapsed.flatten().tolist() == [3, 3, 3]


def test_copies_on_another_device_share_memory_there() -> None:
    scores = torch.zeros(3, 2)
    first, last = scores[:, 0], torch.zeros(2)
    copies = copies_of([scores, first, last], torch.device("meta"))
    of_scores, of_first, of_last = (copies[id(one)].untyped_storage()._cdata for one in (scores, first, last))
    assert of_scores == of_first != of_last
    assert copies[id(first)].stride() == (2,)


def test_arrays_that_share_memory_through_others_share_it_in_their_copies() -> None:
    numbers = torch.arange(4.0).numpy()
    one, other = torch.from_numpy(numbers[:3]), torch.from_numpy(numbers[1:])
    copies = copies_of([one, other])
    copies[id(one)][1] = 7
    assert copies[id(other)].tolist() == [7, 2, 3]
    assert numbers.tolist() == [0, 1, 2, 3]
