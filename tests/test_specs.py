"""What is read off environments."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torchrl.data import (
    Binary,
    Bounded,
    Categorical,
    Composite,
    MultiCategorical,
    MultiOneHot,
    OneHot,
    TensorSpec,
    Unbounded,
)
from torchrl.envs import EnvBase, GymEnv
from torchrl.envs import VmasEnv as TorchRLVmasEnv
from torchrl.envs.utils import MarlGroupMapType

from ctde_kit.envs.pettingzoo import pettingzoo_factory
from ctde_kit.envs.vmas import VmasEnv
from ctde_kit.envs.workers import worker_env
from ctde_kit.errors import UserError
from ctde_kit.keys import GroupKeys
from ctde_kit.specs import ActionSpec, TeamSpec


class SpecOnlyEnv(EnvBase):
    """An env of 5 with one group of 3 agents, for its specs alone."""

    def __init__(self, action: TensorSpec, group: str = "agents", **observation: TensorSpec):
        super().__init__(batch_size=torch.Size([5]))
        agents = Composite({"observation": Unbounded((5, 3, 7)), **observation}, shape=(5, 3))
        self.observation_spec = Composite({"state": Unbounded((5, 11)), group: agents}, shape=(5,))
        self.action_spec = Composite({group: Composite({"action": action}, shape=(5, 3))}, shape=(5,))
        self.reward_spec = Composite({group: Composite({"reward": Unbounded((5, 3, 1))}, shape=(5, 3))}, shape=(5,))

    def _reset(self, tensordict=None):
        raise AssertionError

    def _step(self, tensordict):
        raise AssertionError

    def _set_seed(self, seed):
        raise AssertionError


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (Categorical(4, shape=(5, 3)), ActionSpec("categorical", (4,))),
        (OneHot(4, shape=(5, 3, 4)), ActionSpec("one_hot", (4,))),
        (MultiCategorical([2, 6], shape=(5, 3, 2)), ActionSpec("multi_discrete", (2, 6))),
        (
            Bounded(torch.tensor([-1.0, -2.0]).expand(5, 3, 2), torch.tensor([1.0, 0.5]).expand(5, 3, 2)),
            ActionSpec("continuous", (2,), ((-1.0, -2.0),) * 3, ((1.0, 0.5),) * 3),
        ),
    ],
)
def test_every_action_kind(spec: TensorSpec, expected: ActionSpec) -> None:
    team = TeamSpec.from_env(SpecOnlyEnv(spec))
    assert team["agents"].action == expected
    assert team["agents"].n_agents == 3
    assert team["agents"].observation_dim == 7
    assert team.state_dim == 11
    assert team.observation_dim == 21


def test_masks_and_agent_specific_state_are_seen() -> None:
    env = SpecOnlyEnv(
        Categorical(4, shape=(5, 3)),
        state=Unbounded((5, 3, 13)),
        mask=Categorical(2, shape=(5, 3), dtype=torch.bool),
        action_mask=Categorical(2, shape=(5, 3, 4), dtype=torch.bool),
    )
    group = TeamSpec.from_env(env)["agents"]
    assert (group.mask, group.action_mask, group.state_dim) == (True, True, 13)
    plain = TeamSpec.from_env(SpecOnlyEnv(Categorical(4, shape=(5, 3))))["agents"]
    assert (plain.mask, plain.action_mask, plain.state_dim) == (False, False, None)


def test_n_parameters() -> None:
    assert ActionSpec("multi_discrete", (2, 6)).n_parameters == 8
    assert ActionSpec("categorical", (4,)).n_parameters == 4
    assert ActionSpec("continuous", (3,)).n_parameters == 6


def test_several_groups_of_different_sizes() -> None:
    team = TeamSpec.from_env(VmasEnv("simple_tag", num_envs=2, continuous_actions=False))
    assert [(g.name, g.n_agents, g.observation_dim, g.action.sizes) for g in team] == [
        ("adversary", 3, 16, (9,)),
        ("agent", 1, 14, (9,)),
    ]
    assert team.observation_dim == 3 * 16 + 14


def test_a_pettingzoo_team() -> None:
    env = worker_env(pettingzoo_factory("mpe2/simple_spread_v3", N=2), n_envs=2, n_workers=1, seed=0)
    team = TeamSpec.from_env(env)
    env.close()
    assert [(g.name, g.n_agents, g.action, g.mask) for g in team] == [
        ("agent", 2, ActionSpec("categorical", (5,)), True)
    ]
    assert team.state_dim == team.observation_dim


def test_a_single_agent_env_is_refused() -> None:
    with pytest.raises(UserError, match=r"has a single agent: expected actions under \(group, 'action'\)"):
        TeamSpec.from_env(GymEnv("CartPole-v1"))


def test_unbounded_and_empty_bounds_are_refused() -> None:
    low = torch.zeros(5, 3, 2)
    with pytest.raises(UserError, match="expected finite ones, low < high"):
        TeamSpec.from_env(SpecOnlyEnv(Bounded(low, low)))
    with pytest.raises(UserError, match="Unbounded"):
        TeamSpec.from_env(SpecOnlyEnv(Unbounded((5, 3, 2))))


def test_more_precise_bounds_are_rounded_inward() -> None:
    low, high = (
        torch.tensor(bound, dtype=torch.float64).expand(5, 3, 3) for bound in ((-0.1, 0.7, -1.5), (0.1, 0.9, 2.0))
    )
    spec = Bounded(low, high, dtype=torch.float64)
    action = TeamSpec.from_env(SpecOnlyEnv(spec))["agents"].action
    for bound in (action.low, action.high):
        assert spec.is_in(torch.tensor(bound).expand(5, 3, 3).double())
        assert bound == tuple(map(tuple, torch.tensor(bound).tolist()))  # float32 holds them
    assert action.low[0] == pytest.approx((-0.1, 0.7, -1.5), rel=2e-7)
    assert action.high[0] == pytest.approx((0.1, 0.9, 2.0), rel=2e-7)


def test_bounds_that_float32_cannot_tell_apart_or_hold_are_refused() -> None:
    for low, high in ((0.1, 0.1 + 1e-12), (-1e300, 1e300)):
        spec = Bounded(low, high, torch.Size((5, 3, 2)), dtype=torch.float64)
        with pytest.raises(UserError, match=r"expected finite ones, low < high, in torch\.float32"):
            TeamSpec.from_env(SpecOnlyEnv(spec))


@pytest.mark.parametrize(
    "name", ["next", "state", "done", "is_init", "latent", "collector", "reward", "team.red", "team/red"]
)
def test_a_group_has_no_name_of_another_entry(name: str) -> None:
    with pytest.raises(UserError, match=rf"group '{name}': expected a name that is none of next, state, .*rename"):
        TeamSpec.from_env(SpecOnlyEnv(Categorical(4, shape=(5, 3)), name))


@pytest.mark.parametrize("name", ["0", "17", "agent-1", "red team", "action"])
def test_groups_may_be_called_almost_anything(name: str) -> None:
    assert [group.name for group in TeamSpec.from_env(SpecOnlyEnv(Categorical(4, shape=(5, 3)), name))] == [name]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            Binary(4, torch.Size([5, 3, 4])),
            r"Binary, several choices at once: expected MultiCategorical\(\[2, 2, 2, 2\]\)",
        ),
        (MultiOneHot([3, 4], shape=torch.Size([5, 3, 7])), r"MultiOneHot, .*expected MultiCategorical\(\[3, 4\]\)"),
        (Categorical(6, shape=(5, 3, 1)), r"shape \[3, 1\]: expected \[n_agents\]; .*SqueezeTransform"),
        (Bounded(-1, 1, torch.Size([5, 3])), r"shape \[3\]: expected \[n_agents, F\]; .*FlatVectors"),
        (Bounded(-1, 1, torch.Size([5, 3, 2, 2])), r"shape \[3, 2, 2\]: expected \[n_agents, F\]"),
        (Bounded(0, 4, torch.Size([5, 3, 2]), dtype=torch.int64), "Bounded of torch.int64: expected floats"),
    ],
)
def test_actions_that_would_be_taken_for_others_are_refused(spec: TensorSpec, message: str) -> None:
    with pytest.raises(UserError, match=f"the actions of group 'agents' are .*{message}"):
        TeamSpec.from_env(SpecOnlyEnv(spec))


def test_agents_whose_choices_differ_are_refused() -> None:
    several = MultiCategorical(torch.tensor([[2, 3], [2, 5], [2, 3]]).expand(5, 3, 2), shape=torch.Size([5, 3, 2]))
    message = (
        r"the actions of group 'agents': expected as many options for all agents, found \[\[2, 3\], \[2, 5\]\]; pad"
    )
    with pytest.raises(UserError, match=message):
        TeamSpec.from_env(SpecOnlyEnv(several))
    choices: Any = [Categorical(n, shape=(5,)) for n in (4, 6, 4)]
    one: Any = torch.stack(choices, 1)
    with pytest.raises(UserError, match=r"'agents' differ in their spaces: .*pad them"):
        TeamSpec.from_env(SpecOnlyEnv(one))


def test_a_nested_state_is_refused() -> None:
    state = Composite({"positions": Unbounded((5, 3, 2))}, shape=(5, 3))
    with pytest.raises(UserError, match=r"'state'\): expected one tensor, found the entries \['positions'\]"):
        TeamSpec.from_env(SpecOnlyEnv(Categorical(4, shape=(5, 3)), state=state))


def test_an_image_observation_is_refused() -> None:
    with pytest.raises(UserError, match=r"expected one feature dimension, found shape \[4, 4\]"):
        TeamSpec.from_env(SpecOnlyEnv(Categorical(4, shape=(5, 3)), observation=Unbounded((5, 3, 4, 4))))


def test_an_unknown_group_is_named() -> None:
    with pytest.raises(UserError, match="no group 'prey': this team has"):
        TeamSpec.from_env(SpecOnlyEnv(Categorical(4, shape=(5, 3))))["prey"]


def test_group_keys() -> None:
    keys = GroupKeys("prey")
    assert keys.observation == ("prey", "observation")
    assert keys.team_hidden("critic") == "prey_critic_hidden"


def test_observations_of_several_sizes_in_one_group_name_the_fix() -> None:
    env = TorchRLVmasEnv("simple_tag", num_envs=2, group_map=MarlGroupMapType.ALL_IN_ONE_GROUP)
    with pytest.raises(UserError, match=r"'agents' differ in their spaces: .*pad them .*or split the group") as error:
        TeamSpec.from_env(env)
    assert "\n" not in str(error.value)
    by_kind = {"adversary": ["adversary_0", "adversary_1", "adversary_2"], "agent": ["agent_0"]}
    team = TeamSpec.from_env(TorchRLVmasEnv("simple_tag", num_envs=2, group_map=by_kind))
    assert [group.observation_dim for group in team] == [16, 14]
