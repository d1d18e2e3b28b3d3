"""The worker env as a TorchRL environment: entries, groups, resets, seeds, checkpoints."""

from __future__ import annotations

import random
from functools import partial
from typing import Any, cast

import numpy as np
import pytest
import torch
from gymnasium import spaces
from pettingzoo import ParallelEnv
from torch import nn
from torchrl.collectors import Collector
from torchrl.envs.utils import ExplorationType, check_env_specs, set_exploration_type

from ctde_kit.envs.workers import WorkerEnv, worker_env
from ctde_kit.envs.workers.block_layout import group_by_name
from ctde_kit.errors import UserError
from ctde_kit.modules import (
    GaussianNoise,
    MultiAgentActor,
    MultiAgentDeterministicActor,
    RandomActor,
    ZeroActor,
    own_observation,
    value_critic,
)
from ctde_kit.modules.actors.team_policy import TeamPolicy
from ctde_kit.objectives import AdvantageEstimator, MAPPOLoss
from ctde_kit.specs import GroupSpec, TeamSpec
from tests.contracts.fakes import make_actor, make_network
from tests.envs.toys import BOSSES, WALKERS, Make, ToyEnv, TurnEnv, actions, make_and_close, step, tags

pytestmark = pytest.mark.timeout(60)
make = pytest.fixture(name="make")(make_and_close)


class SpaceEnv(ParallelEnv[Any, Any, Any]):
    """Two agents with spaces as given, whose observations are zeros; it keeps the actions, in the state.

    ``state`` is an attribute, a dictionary or a picture.
    """

    metadata: dict[str, Any] = {"name": "spaces"}  # noqa: RUF012

    def __init__(self, action: spaces.Space[Any], names: tuple[Any, ...] = ("a_0", "a_1"), state: str = "") -> None:
        self.possible_agents = [*names]
        self._action = action
        self._taken = np.zeros(2)
        states = {"dictionary": lambda: {"x": self._taken, "y": np.ones((1, 2))}, "picture": lambda: np.ones((4, 4, 3))}
        if state:
            self.state: Any = states.get(state, {"x": 1})

    def observation_space(self, agent: Any) -> spaces.Space[Any]:
        return spaces.Box(-1, 1, (3,), np.float32)

    def action_space(self, agent: Any) -> spaces.Space[Any]:
        return self._action

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.agents = [*self.possible_agents]
        return {agent: np.zeros(3, np.float32) for agent in self.agents}, {agent: {} for agent in self.agents}

    def step(self, actions: dict[Any, Any]) -> Any:
        for action in actions.values():
            assert self._action.contains(action), action
        self._taken = np.array([np.sum(action * 1.0) for action in actions.values()])
        no = dict.fromkeys(self.agents, False)
        rewards = dict(zip(self.agents, self._taken.tolist(), strict=True))
        return self.reset()[0], rewards, no, no, {agent: {} for agent in self.agents}


@pytest.mark.parametrize(
    ("action", "shape"),
    [
        (spaces.Box(-1, 1, (), np.float32), (2, 1)),
        (spaces.Box(-1, 1, (2, 3), np.float32), (2, 6)),
        (spaces.MultiDiscrete([[2, 3], [4, 2]]), (2, 4)),
    ],
)
def test_an_action_is_a_vector_whatever_its_space(action: spaces.Space[Any], shape: tuple[int, ...]) -> None:
    env = worker_env(partial(SpaceEnv, action), n_envs=3, n_workers=1)
    data = env.rollout(4)
    assert data["a", "action"].shape == (3, 4, *shape)
    torch.testing.assert_close(data["a", "action"].double().sum(-1), data["next", "a", "reward"].squeeze(-1).double())
    assert TeamSpec.from_env(env)["a"].action.vector_dim == (11 if shape[-1] == 4 else shape[-1])
    env.close()


class Saturated(nn.Module):
    """``[*B, F] -> [*B, size]``: one number, large enough that tanh of it is 1 or -1."""

    def __init__(self, size: int, output: float) -> None:
        super().__init__()
        self.size, self.output = size, output

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs.new_full((*inputs.shape[:-1], self.size), self.output)


def policies(group: GroupSpec, output: float) -> dict[str, Any]:
    """Every kind of policy of continuous actions, with the networks' ``output``."""
    inputs, size = own_observation(group), group.action.vector_dim
    network = Saturated(size, output)
    return {
        "random": RandomActor(group),
        "zero": ZeroActor(group),
        "stochastic": MultiAgentActor(group, inputs, Saturated(2 * size, output)),
        "deterministic": MultiAgentDeterministicActor(group, inputs, network),
        "noisy": MultiAgentDeterministicActor(group, inputs, network, GaussianNoise(group, 1.0)),
    }


@pytest.mark.parametrize("output", [-50.0, 50.0])
@pytest.mark.parametrize("name", ["random", "zero", "stochastic", "deterministic", "noisy"])
def test_all_policies_act_within_a_box_of_float64(name: str, output: float) -> None:
    box = spaces.Box(np.array([-0.1, 0.7]), np.array([0.1, 0.9]), dtype=np.float64)
    env = worker_env(partial(SpaceEnv, box), n_envs=3, n_workers=1)
    with set_exploration_type(ExplorationType.RANDOM):
        data = env.rollout(4, policies(TeamSpec.from_env(env)["a"], output)[name])
    env.close()
    assert env.full_action_spec_unbatched["a", "action"].is_in(data["a", "action"].double())


@pytest.mark.parametrize(
    ("kind", "asked", "shape"),
    [
        ("attribute", None, None),
        ("dictionary", None, (4,)),
        ("picture", None, None),
        ("picture", True, (4, 4, 3)),
        ("dictionary", False, None),
    ],
)
def test_what_an_environment_calls_its_state(kind: str, asked: bool | None, shape: tuple[int, ...] | None) -> None:
    make = partial(SpaceEnv, spaces.Box(-1, 1, (2,), np.float32), state=kind)
    env = worker_env(make, n_envs=3, n_workers=1, return_state=asked)
    data = env.rollout(2)
    assert (tuple(data["state"].shape[2:]) if "state" in data.keys() else None) == shape  # noqa: SIM118
    if kind == "dictionary" and shape:
        assert torch.equal(data["next", "state"][..., :2], data["next", "a", "reward"].squeeze(-1))
        assert data["next", "state"][..., 2:].eq(1).all()
    env.close()


def test_a_state_that_is_no_method_cannot_be_asked_for() -> None:
    with pytest.raises(UserError, match=r"return_state: expected an environment with state\(\), found none"):
        worker_env(
            partial(SpaceEnv, spaces.Discrete(2), state="attribute"), n_envs=1, n_workers=1, return_state=True
        ).close()


def test_agents_may_be_numbers() -> None:
    env = worker_env(partial(SpaceEnv, spaces.Discrete(2), names=(0, 1)), n_envs=3, n_workers=1)
    assert env.group_map == {"agents": [0, 1]}
    assert env.rollout(2)["next", "agents", "reward"].shape == (3, 2, 2, 1)
    env.close()
    with pytest.raises(UserError, match=r"expected every one of \[0, 1\] once, found \[1\]"):
        worker_env(
            partial(SpaceEnv, spaces.Discrete(2), names=(0, 1)), n_envs=1, n_workers=1, group_map={"x": [1]}
        ).close()


# --- shapes, keys, specs


def test_specs_and_every_shape(make: Make) -> None:
    """T8: the sizes of the batch, time, agents, features and actions are all different, and none is 1."""
    env = make(partial(ToyEnv, masks=True, limit=4), n_envs=8, n_workers=3)
    check_env_specs(env, break_when_any_done="both")
    data: Any = env.rollout(9, break_when_any_done=False)
    shapes = {key: tuple(data[key].shape[2:]) for key in data.keys(True, True)}
    flag = dict.fromkeys(("done", "terminated", "truncated"), (1,))
    seen: dict[Any, tuple[int, ...]] = {"state": (2,), **flag}
    for group, n, features, choices in (("walker", 3, 4, 5), ("boss", 2, 6, 7)):
        seen |= {(group, "observation"): (n, features), (group, "mask"): (n,), (group, "action_mask"): (n, choices)}
        seen |= {(group, name): (n, 1) for name in flag}
    written = seen | {("walker", "reward"): (3, 1), ("boss", "reward"): (2, 1)}
    expected = seen | {("walker", "action"): (3,), ("boss", "action"): (2,)}
    expected |= {("next", *((key,) if isinstance(key, str) else key)): shape for key, shape in written.items()}
    assert shapes == expected
    assert data.shape == (8, 9)
    assert env.group_map == {"walker": WALKERS, "boss": BOSSES}
    floats = ("state", ("walker", "observation"), ("next", "boss", "reward"))
    assert {data[key].dtype for key in floats} == {torch.float32}


def test_first_numbers(make: Make) -> None:
    env = make(ToyEnv)
    root = env.reset()
    tag = [tags(7, 0, index, 1)[0] for index in range(4)]
    assert len(set(tag)) == 4
    for index in range(4):
        assert root["walker", "observation"][index].tolist() == [[tag[index], 10 * a, -1, 0] for a in range(3)]
        assert root["boss", "observation"][index].tolist() == [[tag[index], 10 * a, -1, 0, 0, 0] for a in (3, 4)]
        assert root["state"][index].tolist() == [tag[index], 0]
    after = step(env, root, walker=3, boss=6)
    assert after["walker", "observation"][2].tolist() == [[tag[2], 10 * a + 1, 3, 0] for a in range(3)]
    assert after["boss", "observation"][3].tolist() == [[tag[3], 10 * a + 1, 6, 0, 0, 0] for a in (3, 4)]
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
    spec: Any = env.full_action_spec["walker", "action"]
    assert spec.space.low[1].tolist() == [[-1, -1], [-2, -2], [-3, -3]]
    data = env.reset()
    data["walker", "action"] = torch.arange(24.0).view(4, 3, 2)
    data["boss", "action"] = -torch.arange(24.0).view(4, 2, 3)
    after = env.step(data)["next"]
    assert after["walker", "observation"][..., 2].tolist() == [[6 * i, 6 * i + 2, 6 * i + 4] for i in range(4)]
    assert after["boss", "observation"][..., 2].tolist() == [[-6 * i, -6 * i - 3] for i in range(4)]


class Odd(ToyEnv):
    """Spaces of the rarer kinds: what boss_1 sees and does, walker_0 counts its actions from 3."""

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        if agent == "boss_1":
            return spaces.Dict({"a": spaces.Discrete(3), "b": spaces.Box(-9, 9, (2, 2))})
        return super().observation_space(agent)

    def action_space(self, agent: str) -> spaces.Space[Any]:
        if agent == "boss_1":
            return spaces.MultiDiscrete([4, 6])
        return spaces.Discrete(5, start=3) if agent == "walker_0" else super().action_space(agent)

    def _observe(self, agent: str, action: float) -> Any:
        if agent == "boss_1":
            return {"a": self.time % 3, "b": np.full((2, 2), action, np.float32)}
        return super()._observe(agent, action)


def test_spaces_of_the_rarer_kinds(make: Make) -> None:
    env = make(Odd)
    check_env_specs(env)
    data = env.reset().update(env.full_action_spec.zero())
    data["boss_1", "action"] = torch.tensor([3, 5]).expand(4, 1, 2).clone()
    data = env.step(data)["next"]
    assert data["boss_1", "observation"][2].tolist() == [[0, 1, 0, 3, 3, 3, 3]]
    assert data["walker", "observation"][1, :, 2].tolist() == [3, 0, 0]
    assert env.changes == [
        "walker action: numbers from 3 as numbers from 0",
        "boss_1 observation: Dict(a, b) as 7 floats",
    ]


class Boards(ToyEnv):
    """Walkers see their four numbers as a square."""

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        return spaces.Box(-np.inf, np.inf, (2, 2), np.float32) if agent in WALKERS else super().observation_space(agent)

    def _observe(self, agent: str, action: float) -> Any:
        observation = super()._observe(agent, action)
        return observation.reshape(2, 2) if agent in WALKERS else observation


def test_flattened_observations_are_the_same_numbers(make: Make) -> None:
    flat, boards = make(Boards, flatten=True), make(Boards)
    found, expected = (step(env, env.reset())["walker", "observation"] for env in (flat, boards))
    assert found.shape == (4, 3, 4)
    assert found[0, :, 1].tolist() == [1, 11, 21]
    assert torch.equal(found, expected.flatten(-2))


def test_what_stays_as_it_is_is_no_change(make: Make) -> None:
    assert make(ToyEnv).changes == []


def test_it_collects(make: Make) -> None:
    env = make(ToyEnv, max_steps=3)
    collector = Collector(env, frames_per_batch=20, total_frames=40)
    batches = [batch["boss", "observation"][:, :, 0, 1].clone() for batch in collector]
    assert torch.cat(batches, 1)[3].tolist() == [30, 31, 32, 30, 31, 32, 30, 31, 32, 30]


def test_more_workers_than_divide_the_envs(make: Make) -> None:
    env = make(ToyEnv, n_envs=5, n_workers=3)
    assert env.reset()["state"][:, 0].tolist() == [tags(7, 0, index, 1)[0] for index in range(5)]


# --- groups


class Unlike(ToyEnv):
    """boss_0 sees as little as a walker, walker_1 may do as much as a boss."""

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        return super().observation_space("walker_0" if agent == "boss_0" else agent)

    def action_space(self, agent: str) -> spaces.Space[Any]:
        return super().action_space("boss_0" if agent == "walker_1" else agent)

    def _observe(self, agent: str, action: float) -> Any:
        return super()._observe(agent, action)[: 4 if agent == "boss_0" else None]


def test_groups_of_unlike_agents_are_split(make: Make) -> None:
    env = make(Unlike)
    expected = {"walker_0": ["walker_0", "walker_2"], "walker_1": ["walker_1"]} | {boss: [boss] for boss in BOSSES}
    assert env.group_map == expected
    assert list(env.full_action_spec.keys()) == list(expected)
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


def run(env: WorkerEnv, steps: int) -> Any:
    """``steps`` steps after a full reset."""
    data, stored = env.reset(), []
    for index in range(steps):
        stepped, data = env.step_and_maybe_reset(data.update(actions(env, walker=index % 5)))
        stored.append(stepped)
    return torch.stack(stored, -1)


def test_the_data_depend_on_the_seed_and_not_on_the_workers(make: Make) -> None:
    first, *others = (run(make(ToyEnv, n_workers=n, max_steps=3), 8) for n in (1, 2, 4))
    for other in others:
        assert (first == other).all()
    assert (run(make(ToyEnv, seed=8, max_steps=3), 8)["state"] != first["state"]).any()
    env = make(ToyEnv, seed=8, max_steps=3)
    env.set_seed(7)
    assert (run(env, 8) == first).all()


def test_streams_go_on_and_full_resets_do_not_restart_them(make: Make) -> None:
    env = make(ToyEnv)
    found = torch.stack([env.reset()["state"][:, 0] for _ in range(3)], -1)
    assert found.tolist() == [tags(7, 0, index, 3) for index in range(4)]


def test_this_processs_generators_are_untouched(make: Make) -> None:
    def draw() -> tuple[float, float, float]:
        return torch.rand(1).item(), np.random.rand(), random.random()

    def seed() -> None:
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)

    seed()
    run(make(ToyEnv, seed=None, max_steps=2), 3)
    found = draw()
    seed()
    assert found == draw()


def test_a_checkpoint_resets_both_runs_to_the_same_data(make: Make) -> None:
    env = make(ToyEnv, max_steps=3)
    assert env.state_is_captured is False
    run(env, 4)
    state = env.state_dict()
    state = {key: dict(value) for key, value in state.items()}
    went_on = run(env, 7)
    later = run(env, 2)

    resumed = make(ToyEnv, max_steps=3, seed=99, n_workers=1)
    run(resumed, 2)
    resumed.load_state_dict(state)
    assert (run(resumed, 7) == went_on).all()
    assert (run(resumed, 2) == later).all()
    assert went_on["state"][:, 0, 0].tolist() == [tags(7, 1, index, 1)[0] for index in range(4)]


def test_a_partial_reset_does_not_start_the_checkpoints_epoch(make: Make) -> None:
    env = make(ToyEnv)
    data = env.reset()
    env.state_dict()
    data = env.reset(data.set("_reset", torch.tensor([[True], [False], [False], [False]])))
    assert data["state"][0, 0] == tags(7, 0, 0, 2)[1]
    assert env.reset()["state"][:, 0].tolist() == [tags(7, 1, index, 1)[0] for index in range(4)]


# --- turns


def test_whoever_waits_learns_values_and_no_policy(make: Make) -> None:
    """A batch of a game through the objectives; its last move is player 0's, who wins while player 1 waits."""
    torch.manual_seed(0)
    env = make(partial(TurnEnv, last=5))
    team = TeamSpec.from_env(env)
    actors = {group.name: make_actor(group) for group in team}
    with set_exploration_type(ExplorationType.RANDOM):
        batch: Any = env.rollout(12, TeamPolicy(actors), break_when_any_done=False)
    for index, (group, actor) in enumerate(zip(team, actors.values(), strict=True)):
        keys, waits = group.keys, torch.arange(12) % 5 % 2 != index
        critic, logits = value_critic(team, group, make_network(False)), cast(Any, [])
        AdvantageEstimator(critic, keys, gamma=0.9, lmbda=0.9)(batch)
        target, advantage = batch[keys.value_target].flatten(2), batch[keys.advantage].flatten(2)
        assert torch.allclose(target[batch["next", "done"].squeeze(-1)], torch.tensor([1.0, -1.0][index]))
        assert (advantage != 0).all()

        actor.agent_network.network.register_forward_hook(lambda _, __, out, seen=logits: seen.append(out))
        losses = MAPPOLoss(actor, critic, keys=keys, entropy_coeff=0.1)(batch)
        (gradient,) = torch.autograd.grad(losses["loss_objective"] + losses["loss_entropy"], logits)
        assert not batch[keys.action_log_prob][:, waits].any()
        assert not gradient[:, waits].any()
        assert (gradient[:, ~waits] != 0).all()
