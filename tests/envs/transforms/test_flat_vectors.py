"""Envs of other shapes and dtypes than networks take, seen through ``FlatVectors``."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict import TensorDictBase
from torchrl.data import Binary, Bounded, Categorical, Composite, MultiCategorical, OneHot, TensorSpec, Unbounded
from torchrl.envs import EnvBase, TransformedEnv
from torchrl.envs.utils import check_env_specs

from ctde_kit.envs.transforms import FlatVectors, flat_vectors
from ctde_kit.errors import UserError
from ctde_kit.keys import GroupKeys
from ctde_kit.specs import TeamSpec

N_ENVS, N_AGENTS = 5, 3
KEYS = GroupKeys("crew")


class SpecEnv(EnvBase):
    """One group of 3 agents; observations and states are random values of their specs, actions are kept."""

    def __init__(self, observation: TensorSpec, state: TensorSpec | None = None, action: TensorSpec | None = None):
        super().__init__(batch_size=torch.Size([N_ENVS]))
        shape = (N_ENVS, N_AGENTS)
        action = Categorical(4, shape=torch.Size(shape)) if action is None else action
        seen: dict[str, Any] = {"crew": Composite({"observation": observation}, shape=shape)}
        self.observation_spec = Composite(seen if state is None else {**seen, "state": state}, shape=(N_ENVS,))
        self.action_spec = Composite({"crew": Composite({"action": action}, shape=shape)}, shape=(N_ENVS,))
        reward = Composite({"reward": Unbounded((*shape, 1))}, shape=shape)
        self.reward_spec = Composite({"crew": reward}, shape=(N_ENVS,))
        self.taken: list[torch.Tensor] = []
        self.read: torch.Tensor | None = None

    def _reset(self, tensordict: TensorDictBase | None = None) -> TensorDictBase:
        return self.observation_spec.rand().update(self.full_done_spec.zero())

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        self.taken.append(tensordict.get(KEYS.action))
        self.read = tensordict.get(KEYS.observation, None)
        return self._reset().update(self.full_reward_spec.zero())

    def _set_seed(self, seed: int | None) -> None:
        torch.manual_seed(seed or 0)


def spec(kind: str) -> TensorSpec:
    batch = (N_ENVS, N_AGENTS)
    specs = {
        "uint8": lambda: Bounded(0, 255, (*batch, 7), dtype=torch.uint8),
        "int64": lambda: Bounded(0, 9, (*batch, 7), dtype=torch.int64),
        "bool": lambda: Binary(7, torch.Size((*batch, 7)), dtype=torch.bool),
        "float64": lambda: Unbounded((*batch, 7), dtype=torch.float64),
        "one_hot": lambda: OneHot(7, torch.Size((*batch, 7))),
        "grid": lambda: Unbounded((*batch, 2, 5, 3)),
        "no features": lambda: Unbounded(batch),
        "choice": lambda: Categorical(6, torch.Size(batch)),
        "choices": lambda: MultiCategorical([2, 3], torch.Size((*batch, 2))),
    }
    return specs[kind]()


@pytest.mark.parametrize(
    ("kind", "features"),
    [
        ("uint8", 7),
        ("int64", 7),
        ("bool", 7),
        ("float64", 7),
        ("one_hot", 7),
        ("grid", 30),
        ("no features", 1),
        ("choice", 6),
        ("choices", 5),
    ],
)
def test_observations_are_float_vectors(kind: str, features: int) -> None:
    base = SpecEnv(spec(kind))
    with pytest.raises(UserError, match=r"'crew', 'observation'\): expected .* transform FlatVectors"):
        TeamSpec.from_env(base)
    env = flat_vectors(base)
    check_env_specs(env)
    assert TeamSpec.from_env(env)["crew"].observation_dim == features
    for data in (env.reset(), env.rollout(2)["next"]):
        assert data[KEYS.observation].dtype == torch.float32
        assert data[KEYS.observation].shape[-2:] == (N_AGENTS, features)


def test_values_stay_in_their_order() -> None:
    """A cast scales nothing, a grid is read row by row, and choices are one-hot side by side."""
    numbers = torch.arange(N_ENVS * N_AGENTS * 6)
    cases: list[tuple[TensorSpec, torch.Tensor, torch.Tensor]] = [
        (Bounded(0, 255, (N_ENVS, N_AGENTS, 6), dtype=torch.uint8), (numbers % 256).byte(), numbers % 256),
        (Unbounded((N_ENVS, N_AGENTS, 3, 2)), numbers.float(), numbers),
    ]
    for observation, written, expected in cases:
        transform = FlatVectors(TransformedEnv(SpecEnv(observation)))
        data = SpecEnv(observation).reset()
        data.set(KEYS.observation, written.reshape(observation.shape))
        assert transform(data)[KEYS.observation].tolist() == expected.reshape(N_ENVS, N_AGENTS, 6).tolist()
    env = SpecEnv(spec("choices"))
    data = env.reset()
    data.set(KEYS.observation, torch.tensor([1, 2]).expand(N_ENVS, N_AGENTS, 2))
    assert FlatVectors(env)(data)[KEYS.observation][3, 1].tolist() == [0, 1, 0, 0, 1]


def test_a_state_is_a_float_vector() -> None:
    env = flat_vectors(SpecEnv(Unbounded((N_ENVS, N_AGENTS, 7)), Bounded(0, 9, (N_ENVS, 4, 2), dtype=torch.int64)))
    check_env_specs(env)
    assert TeamSpec.from_env(env).state_dim == 8
    assert env.rollout(3)["next", "state"].shape == (N_ENVS, 3, 8)


@pytest.mark.parametrize(
    ("shape", "dtype", "features"),
    [((), torch.float32, 1), ((2, 3), torch.float32, 6), ((2,), torch.float64, 2)],
)
def test_the_env_gets_actions_of_its_own_shape(shape: tuple[int, ...], dtype: torch.dtype, features: int) -> None:
    low = -torch.arange(1.0, 1 + features).reshape(shape).expand(N_ENVS, N_AGENTS, *shape).to(dtype)
    base = SpecEnv(Unbounded((N_ENVS, N_AGENTS, 7)), action=Bounded(low, -low, dtype=dtype))
    env = flat_vectors(base)
    group = TeamSpec.from_env(env)["crew"]
    assert group.action.low[0] == tuple(float(-n) for n in range(1, 1 + features))
    action = torch.arange(float(N_ENVS * N_AGENTS * features)).reshape(N_ENVS, N_AGENTS, features)
    stepped = env.step(env.reset().set(KEYS.action, action))
    assert base.taken[-1].shape == (N_ENVS, N_AGENTS, *shape)
    assert base.taken[-1].dtype == dtype
    assert base.taken[-1].reshape(N_ENVS, N_AGENTS, -1).tolist() == action.tolist()
    assert torch.equal(stepped[KEYS.action], action)
    check_env_specs(env)


@pytest.mark.parametrize("shape", [(2,), (1, 2)])
def test_the_most_and_the_least_action_are_within_the_envs_more_precise_bounds(shape: tuple[int, ...]) -> None:
    low, high = (
        torch.tensor(bound, dtype=torch.float64).expand(N_ENVS, N_AGENTS, 2) for bound in ((-0.1, 0.7), (0.1, 0.9))
    )
    own = Bounded(*(bound.reshape(N_ENVS, N_AGENTS, *shape) for bound in (low, high)), dtype=torch.float64)
    assert not own.is_in(high.float().double().reshape(own.shape))
    base = SpecEnv(Unbounded((N_ENVS, N_AGENTS, 7)), action=own)
    env = flat_vectors(base)
    for bound in (env.action_spec[KEYS.action].space.low, env.action_spec[KEYS.action].space.high):
        env.step(env.reset().set(KEYS.action, bound))
        assert own.is_in(base.taken[-1])
    torch.testing.assert_close(env.action_spec[KEYS.action].space.high, high.float(), rtol=2e-7, atol=0)


@pytest.mark.parametrize("kind", ["uint8", "int64", "bool", "float64", "one_hot", "grid", "no features"])
@pytest.mark.parametrize("declared", [True, False])
def test_the_env_reads_its_own_observations_in_a_step(kind: str, declared: bool) -> None:
    """An env without a state of its own steps from what it wrote, whether it says so in its ``state_spec`` or not."""
    _check_reading(SpecEnv(spec(kind)), declared=declared)


@pytest.mark.parametrize(
    "observation",
    [
        spec("choice"),
        Categorical(6, torch.Size((N_ENVS, N_AGENTS, 2, 3))),
        spec("choices"),
        MultiCategorical([2, 3], torch.Size((N_ENVS, N_AGENTS, 4, 2))),
    ],
)
def test_the_env_reads_choices_as_numbers_in_a_step(observation: TensorSpec) -> None:
    _check_reading(SpecEnv(observation), declared=True)


def _check_reading(base: SpecEnv, *, declared: bool) -> None:
    own = base.observation_spec[KEYS.observation]
    if declared:
        base.state_spec = base.observation_spec.clone()
    env = flat_vectors(base)
    check_env_specs(env)
    wrote = base.observation_spec.rand()
    root = env.transform(wrote.clone()).update(env.full_done_spec.zero())
    stepped = env.step(env.rand_action(root))
    assert base.read is not None
    assert base.read.shape == own.shape
    assert base.read.dtype == own.dtype
    torch.testing.assert_close(base.read, wrote[KEYS.observation], rtol=1e-6, atol=1e-6)
    assert stepped[KEYS.observation].dtype == torch.float32  # the root stays what networks saw


def test_what_is_flat_already_stays() -> None:
    env = SpecEnv(Unbounded((N_ENVS, N_AGENTS, 7)), action=Bounded(-1.0, 1.0, (N_ENVS, N_AGENTS, 2)))
    assert flat_vectors(env) is env


def test_choices_of_which_agents_have_other_numbers_are_refused() -> None:
    sizes = torch.tensor([[2, 3], [4, 3], [2, 3]]).expand(N_ENVS, N_AGENTS, 2)
    with pytest.raises(
        UserError, match=r"'observation'\): expected as many options for all agents, found \[\[2, 3\], \[4"
    ):
        flat_vectors(SpecEnv(MultiCategorical(sizes, torch.Size((N_ENVS, N_AGENTS, 2)))))


def test_pictures_are_refused() -> None:
    with pytest.raises(UserError, match=r"at most 20000 features, found shape \[120, 60, 3\], 21600 of them"):
        flat_vectors(SpecEnv(Bounded(0, 255, (N_ENVS, N_AGENTS, 120, 60, 3), dtype=torch.uint8)))
