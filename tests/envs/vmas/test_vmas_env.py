"""VMAS: time limits, partial resets, random streams, saved states."""

from __future__ import annotations

import time
import warnings

import pytest
import torch
from torchrl.envs import check_env_specs
from torchrl.envs.libs.vmas import VmasEnv as TorchRLVmasEnv
from vmas.simulator.core import Agent, Sphere, World
from vmas.simulator.scenario import BaseScenario

from ctde_kit.envs.vmas import VmasEnv, shipped_scenarios
from ctde_kit.envs.vmas.world_snapshot import restore, snapshot
from ctde_kit.envs.vmas.world_state import WorldState
from ctde_kit.errors import UserError
from ctde_kit.specs import TeamSpec


def make(scenario: str = "navigation", num_envs: int = 5, **kwargs) -> VmasEnv:
    kwargs.setdefault("max_steps", 4)
    return VmasEnv(scenario, num_envs=num_envs, **kwargs)


def tensors(env: VmasEnv) -> dict[str, torch.Tensor]:
    return {path: value.clone() for path, value in WorldState.read(env.simulation.world).values.items()}


def reset_rows(env: VmasEnv, rows: list[int]) -> torch.Tensor:
    mask = torch.zeros(*env.batch_size, 1, dtype=torch.bool)
    mask[rows] = True
    carrier = env.rand_action(env.reset())
    for _ in range(2):
        _, carrier = env.step_and_maybe_reset(env.rand_action(carrier))
    carrier["_reset"] = mask
    return carrier


def test_time_limit_truncates_and_does_not_terminate() -> None:
    rollout = make().rollout(4)
    assert rollout["next", "truncated"].squeeze(-1).tolist() == [[False, False, False, True]] * 5
    assert not rollout["next", "terminated"].any()
    assert torch.equal(rollout["next", "done"], rollout["next", "truncated"])


def test_next_observation_is_the_one_before_the_reset() -> None:
    rollout = make().rollout(6, break_when_any_done=False)
    last = rollout["next", "agents", "observation"][:, 3]
    assert not torch.allclose(last, rollout["agents", "observation"][:, 4])
    assert torch.equal(rollout["next", "agents", "observation"][:, 2], rollout["agents", "observation"][:, 3])


@pytest.mark.parametrize(
    "scenario",
    [
        "navigation",
        "balance",
        "transport",
        pytest.param("sampling", marks=pytest.mark.slow),
        "simple_tag",
        "simple_spread",
    ],
)
def test_partial_reset_changes_only_the_rows_asked_for(scenario: str) -> None:
    env = make(scenario, max_steps=100)
    carrier = reset_rows(env, [1, 3])
    before = tensors(env)
    after_reset = env.reset(carrier.clone())
    after = tensors(env)
    kept, redrawn = [0, 2, 4], [1, 3]
    batched = [path for path, value in before.items() if value.ndim and len(value) == 5]
    for path in batched:
        assert torch.equal(before[path][kept], after[path][kept]), path
    assert any(not torch.equal(before[path][redrawn], after[path][redrawn]) for path in batched)
    for group in env.group_map:
        key = (group, "observation")
        assert torch.equal(after_reset[key][kept], carrier[key][kept])
        assert not torch.equal(after_reset[key][redrawn], carrier[key][redrawn])
    assert env.elapsed.flatten().tolist() == [2, 0, 2, 0, 2]


def test_partial_reset_gives_the_unfinished_their_last_observation() -> None:
    env = make(max_steps=100)
    carrier = reset_rows(env, [1])
    after = env._reset(carrier.select("_reset"))
    kept = [0, 2, 3, 4]
    assert torch.equal(after["agents", "observation"][kept], carrier["agents", "observation"][kept])
    assert not torch.equal(after["agents", "observation"][1], carrier["agents", "observation"][1])


def test_partial_reset_follows_the_distribution_of_full_resets() -> None:
    env = make("navigation", num_envs=2000, max_steps=100)
    carrier = env.reset()
    full = carrier["agents", "observation"][..., :2].clone()
    carrier["_reset"] = torch.arange(2000).reshape(-1, 1) >= 1
    partial = env.reset(carrier)["agents", "observation"][1:, :, :2]
    assert torch.allclose(full.mean((0, 1)), partial.mean((0, 1)), atol=0.08)
    assert torch.allclose(full.std((0, 1)), partial.std((0, 1)), atol=0.05)


def test_partial_reset_costs_the_same_for_one_and_for_many_envs() -> None:
    env = make("navigation", num_envs=64, max_steps=100)

    def seconds(rows: list[int]) -> float:
        carrier = reset_rows(env, rows)
        times = []
        for _ in range(7):
            start = time.perf_counter()
            env.reset(carrier.clone())
            times.append(time.perf_counter() - start)
        return sorted(times)[3]

    assert seconds(list(range(60))) < 3 * seconds([5])


def test_goal_kept_in_python_is_found_and_named() -> None:
    env = make("simple_speaker_listener", max_steps=100, seed=3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(8):
            env.reset(reset_rows(env, [2]))
    messages = [str(item.message) for item in caught if "keeps state for the whole batch" in str(item.message)]
    assert len(messages) == 1
    assert "goal_b" in messages[0]
    assert any("goal_b" in path for path in env.python_state)


def test_goal_of_unfinished_envs_survives_a_partial_reset() -> None:
    env = make("simple_speaker_listener", max_steps=100, seed=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(8):
            carrier = reset_rows(env, [2])
            goal = env.world.agents[0].goal_b
            env.reset(carrier)
            assert env.world.agents[0].goal_b is goal


def test_another_env_does_not_change_what_this_one_draws() -> None:
    def rollout(disturb: bool) -> torch.Tensor:
        env = make("navigation", seed=1)
        carrier = env.reset()
        observations = []
        for _ in range(9):
            if disturb:
                make("navigation", seed=7).rollout(2)
            carrier["agents", "action"] = torch.full((5, 4, 2), 0.3)
            _, carrier = env.step_and_maybe_reset(carrier)
            observations.append(carrier["agents", "observation"])
        return torch.stack(observations)

    assert torch.equal(rollout(False), rollout(True))


def test_env_leaves_the_programs_random_state_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    env = make()
    env.reset()
    env.reset(reset_rows_without_draws(env))
    assert torch.equal(before, torch.get_rng_state())


def reset_rows_without_draws(env: VmasEnv) -> torch.Tensor:
    carrier = env.reset()
    carrier["_reset"] = torch.arange(5).reshape(-1, 1) < 2
    return carrier


@pytest.mark.parametrize("scenario", ["navigation", "balance", "simple_tag", "football", "waterfall"])
def test_saved_env_goes_on_bit_for_bit(scenario: str) -> None:
    env = make(scenario, max_steps=6, seed=1)
    carrier = env.reset()
    for _ in range(4):
        _, carrier = env.step_and_maybe_reset(env.rand_action(carrier))
    saved = env.state_dict()
    other = make(scenario, max_steps=6, seed=2)
    other.rollout(3)
    other.load_state_dict(saved)
    first, second = carrier.clone(), carrier.clone()
    for _ in range(8):
        env.rand_action(first)
        for group in env.group_map:
            second[group, "action"] = first[group, "action"]
        step, first = env.step_and_maybe_reset(first)
        other_step, second = other.step_and_maybe_reset(second)
        for group in env.group_map:
            for name in ("observation", "reward"):
                assert torch.equal(step["next", group, name], other_step["next", group, name])
        assert torch.equal(step["next", "done"], other_step["next", "done"])


def test_steps_equal_torchrls_env() -> None:
    ours = make("balance", num_envs=3, max_steps=None, seed=4)
    theirs = TorchRLVmasEnv("balance", num_envs=3)
    ours.reset()
    theirs.reset()
    for entity, source in zip(theirs._env.world.entities, ours.world.entities, strict=True):
        for name in ("pos", "vel", "rot", "ang_vel"):
            setattr(entity.state, name, getattr(source.state, name).clone())
    theirs._env.scenario.global_shaping = ours.simulation.world.scenario.global_shaping.clone()
    for _ in range(5):
        action = ours.rand_action(ours.fake_tensordict())["agents", "action"]
        step = ours.step(ours.fake_tensordict().set(("agents", "action"), action))
        reference = theirs.step(theirs.fake_tensordict().set(("agents", "action"), action))
        assert torch.equal(step["next", "agents", "observation"], reference["next", "agents", "observation"])
        assert torch.equal(step["next", "agents", "reward"], reference["next", "agents", "reward"])


# Their worlds take seconds to build.
LARGE = ("road_traffic", "sampling")


@pytest.mark.parametrize(
    "scenario", [pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE)) for name in shipped_scenarios()]
)
def test_every_shipped_scenario_builds_and_steps(scenario: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        env = VmasEnv(scenario, num_envs=3, max_steps=2)
        team = TeamSpec.from_env(env)
        rollout = env.rollout(3, break_when_any_done=False)
    for group in team:
        shape = (3, 3, group.n_agents, group.observation_dim)
        assert rollout[group.keys.observation].shape == shape
        assert rollout["next", group.name, "reward"].shape == (3, 3, group.n_agents, 1)


@pytest.mark.parametrize("continuous", [True, False])
def test_specs_hold(continuous: bool) -> None:
    check_env_specs(make("simple_tag", continuous_actions=continuous))
    check_env_specs(make("navigation", continuous_actions=continuous, info=True))


def test_unlike_agents_of_one_group_become_groups() -> None:
    env = make("simple_crypto")
    assert {group.name: group.n_agents for group in TeamSpec.from_env(env)} == {"alice": 1, "bob": 1, "eve": 1}


class CountingScenario(BaseScenario):
    """A user's own scenario that counts resets in Python and reads one argument."""

    def make_world(self, batch_dim: int, device: torch.device, **kwargs) -> World:
        self.speed = kwargs.get("speed", 1.0)
        self.resets = 0
        world = World(batch_dim, device)
        world.add_agent(Agent(name="walker_0", shape=Sphere(0.1)))
        return world

    def reset_world_at(self, env_index: int | None = None) -> None:
        self.resets += 1
        for agent in self.world.agents:
            position = torch.rand(self.world.batch_dim if env_index is None else 1, 2)
            agent.set_pos(position, batch_index=env_index)

    def observation(self, agent: Agent) -> torch.Tensor:
        return agent.state.pos

    def reward(self, agent: Agent) -> torch.Tensor:
        return agent.state.pos.sum(-1)


def test_users_own_scenario_with_python_state_is_reset_env_by_env() -> None:
    env = VmasEnv(CountingScenario(), num_envs=4, scenario_kwargs={"speed": 2.0})
    carrier = env.reset()
    carrier["_reset"] = torch.tensor([[False], [True], [False], [False]])
    with pytest.warns(UserWarning, match=r"env\.scenario\.resets"):
        after = env.reset(carrier.clone())
    kept = [0, 2, 3]
    assert torch.equal(after["walker", "observation"][kept], carrier["walker", "observation"][kept])
    assert not torch.equal(after["walker", "observation"][1], carrier["walker", "observation"][1])


@pytest.mark.parametrize(
    ("scenario", "arguments", "message"),
    [
        ("navigatoin", {}, "did you mean navigation"),
        ("navigation", {"n_agentz": 3}, "'n_agentz' is never read by navigation: did you mean n_agents"),
        ("simple_spread", {"speed": 3}, "'speed' is never read"),
    ],
)
def test_mistakes_are_named(scenario: str, arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        VmasEnv(scenario, num_envs=2, scenario_kwargs=arguments)


def test_a_restored_world_lives_where_the_env_lives() -> None:
    env = make()
    env.reset()
    saved = snapshot(WorldState.read(env.simulation.world))
    env.simulation.world._device = torch.device("meta")
    restore(WorldState.read(env.simulation.world), saved)
    assert env.world.agents[0].state.pos.device.type == "meta"
