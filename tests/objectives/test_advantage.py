"""Advantages and value targets of fresh batches."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

import ctde_kit as ck
from ctde_kit.errors import UserError
from ctde_kit.keys import GroupKeys
from ctde_kit.modules import AgentNetwork, MultiAgentMLP, ValueNorm, team_observation, value_critic
from ctde_kit.objectives import AdvantageEstimator
from ctde_kit.specs import TeamSpec
from tests.contracts.fakes import (
    HIDDEN,
    LENGTH,
    N_ENVS,
    collect,
    endings,
    group_spec,
    identity_critic,
    identity_group,
    make_actor,
    make_network,
)

KEYS = GroupKeys()
GROUP = group_spec()
TEAM = TeamSpec((GROUP, group_spec("others", 2, observation_dim=8)), state_dim=10)


def estimator_of(critic: AgentNetwork, **options: Any) -> AdvantageEstimator:
    return AdvantageEstimator(critic, KEYS, **{"gamma": 0.5, "lmbda": 1.0, "normalize": "none", **options})


def written(value: list, next_value: list, reward: list, **flags: list) -> TensorDict:
    """A batch of one env and two agents, whose values are given: rows are steps, columns agents."""

    def entry(rows: list) -> Tensor:
        return torch.tensor(rows)[None, :, :, None]

    data = TensorDict({"agents": {"state": entry(value).float()}}, [1, len(value)])
    data["next"] = {"agents": {"state": entry(next_value).float(), "reward": entry(reward).float()}}
    for name in ("done", "terminated"):
        data["next", name] = torch.tensor(flags.get(name, [0] * len(value))).bool()[None, :, None]
        if f"agent_{name}" in flags:
            data["next", "agents", name] = entry(flags[f"agent_{name}"]).bool()
    if "mask" in flags:
        data["agents", "mask"] = torch.tensor(flags["mask"]).bool()[None]
    return data


def advantages(data: TensorDict, **options: Any) -> list:
    group = identity_group(mask=("agents", "mask") in data.keys(True))
    return estimator_of(identity_critic(group), **options)(data)["agents", "advantage"][0, :, :, 0].tolist()


def test_a_time_limit_bootstraps_the_last_observation_and_not_the_next_row() -> None:
    data = written([[2, 2], [4, 4]], [[10, 20], [6, 6]], [[1, 1], [2, 2]], done=[1, 0])
    # 1 + 0.5*10 - 2, 1 + 0.5*20 - 2; then 2 + 0.5*6 - 4, the batch's end.
    assert advantages(data) == [[4, 9], [1, 1]]


def test_a_termination_bootstraps_nothing() -> None:
    data = written([[2, 2], [4, 4]], [[10, 20], [6, 6]], [[1, 1], [2, 2]], done=[1, 0], terminated=[1, 0])
    assert advantages(data) == [[-1, -1], [1, 1]]


def test_agents_end_one_by_one() -> None:
    data = written(
        value=[[1, 1], [1, 1], [1, 1]],
        next_value=[[8, 1], [1, 6], [1, 4]],
        reward=[[3, 3], [3, 3], [3, 3]],
        done=[0, 0, 1],
        agent_done=[[1, 0], [1, 1], [1, 1]],
        agent_terminated=[[1, 0], [1, 0], [1, 0]],
        mask=[[1, 1], [0, 1], [0, 0]],
    )
    first, second = zip(*advantages(data), strict=True)
    assert first == (2, 0, 0)  # terminated in its first step: 3 - 1, then dead
    assert second == (5, 5, 0)  # its own time limit: 3 + 0.5*6 - 1, before it 3 + 0.5*1 - 1 + 0.5*5; then gone


def test_the_team_ends_everyone() -> None:
    data = written(
        [[1, 1], [1, 1]], [[8, 8], [1, 1]], [[3, 3]] * 2, done=[1, 0], agent_done=[[0, 1], [0, 0]], mask=[[1, 1]] * 2
    )
    assert advantages(data) == [[6, 6], [2.5, 2.5]]


def test_targets_are_advantages_plus_values() -> None:
    data = written([[2, 3]], [[4, 6]], [[1, 1]])
    estimator_of(identity_critic(identity_group()))(data)
    assert data["agents", "value_target"].flatten().tolist() == [3, 4]
    assert data["agents", "state_value"].flatten().tolist() == [2, 3]


def test_values_are_denormalized_with_the_statistics_before_the_batch() -> None:
    norm = ValueNorm()
    norm.update(torch.tensor([-2.0, 6.0]))  # mean 2, deviation 4
    data = written([[0, 1]], [[2, 2]], [[1, 1]])
    # Values 2 and 6, next values 10: targets 1 + 0.5*10 = 6.
    assert advantages(data, value_norm=norm) == [[4, 0]]
    assert data["agents", "value_target"].flatten().tolist() == [6, 6]
    assert data["agents", "state_value"].flatten().tolist() == [0, 1]


def test_statistics_move_once_a_batch() -> None:
    norm = ValueNorm(decay=0.75)
    data = written([[2, 3], [1, 1]], [[4, 6], [1, 1]], [[1, 1], [1, 1]])
    estimator_of(identity_critic(identity_group()), value_norm=norm)(data)
    expected = ValueNorm(decay=0.75)
    expected.update(data["agents", "value_target"])
    assert norm.state_dict() == expected.state_dict()
    assert norm.weight.item() == 0.25


@pytest.mark.parametrize("normalize", ["joint", "agent"])
def test_normalization_is_a_choice(normalize: Any) -> None:
    batch, _ = collect(TEAM, {}, *endings())
    critic = value_critic(TEAM, GROUP, make_network(False))
    advantage = estimator_of(critic, normalize=normalize)(batch)["agents", "advantage"]
    dims = (0, 1, 2, 3) if normalize == "joint" else (0, 1, 3)
    torch.testing.assert_close(advantage.mean(dims), torch.zeros_like(advantage.mean(dims)), rtol=0, atol=1e-5)
    torch.testing.assert_close(advantage.std(dims), torch.ones_like(advantage.mean(dims)), rtol=0, atol=1e-4)


def two_batches() -> tuple[TensorDictBase, TensorDictBase]:
    """Consecutive: episodes go on from the first to the second, except the third env's, which ends with the batch."""
    first, next_root = collect(TEAM, {}, *endings())
    return first, collect(TEAM, {}, *endings(), next_root)[0]


def plain_loop(critic: AgentNetwork, batch: TensorDictBase, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Values, next values and the last hidden state, step by step."""
    values, next_values = [], []
    for t in range(LENGTH):
        step = batch[:, t].select("agents", "others", "state", "is_init").set("agents_critic_hidden", hidden)
        step = critic(step)
        hidden = step["next", "agents_critic_hidden"]
        after = batch[:, t]["next"].select("agents", "others", "state").set("agents_critic_hidden", hidden)
        after = critic(after.set("is_init", torch.zeros(N_ENVS, 1, dtype=torch.bool)))
        values.append(step["agents", "state_value"])
        next_values.append(after["agents", "state_value"])
    return torch.stack(values, 1), torch.stack(next_values, 1), hidden


@pytest.mark.parametrize(
    ("sees", "heads"), [("team", "agent"), ("team", "one"), ("observation", "one"), ("state", "network")]
)
@torch.no_grad()
def test_values_of_a_recurrent_critic_are_exact_across_ends_and_batches(sees: Any, heads: Any) -> None:
    critic = value_critic(TEAM, GROUP, make_network(True), sees=sees, heads=heads)
    estimator = estimator_of(critic, gamma=1.0, lmbda=0.0)
    hidden = torch.zeros(N_ENVS, critic.inputs.n_agents, HIDDEN)
    for batch in two_batches():
        value, next_value, hidden = plain_loop(critic, batch, hidden)
        estimator(batch)
        torch.testing.assert_close(batch["agents", "state_value"], value, rtol=0, atol=1e-5)
        alive = ~batch["next", "terminated"].unsqueeze(-1)
        expected = batch["next", "agents", "reward"] + next_value * alive
        torch.testing.assert_close(batch["agents", "value_target"], expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_hidden_states_that_a_recurrent_critic_used_are_stored() -> None:
    critic = value_critic(TEAM, GROUP, make_network(True))
    first, second = two_batches()
    estimator = estimator_of(critic)
    estimator(first)
    assert not first["agents_critic_hidden"][:, 0].any()
    begins = first["is_init"].squeeze(-1)
    assert torch.equal(first["agents_critic_hidden"].flatten(2).any(-1), ~begins)
    estimator(second)
    assert second["agents_critic_hidden"][:, 0].flatten(1).any(1).tolist() == [True, True, False, True]


def test_the_carried_hidden_state_is_saved() -> None:
    critic = value_critic(TEAM, GROUP, make_network(True))
    first, second = two_batches()
    estimator, resumed, fresh = (estimator_of(critic) for _ in range(3))
    estimator(first)
    resumed.load_state_dict(estimator.state_dict())
    goes_on, from_saved, from_zero = (
        one(second.clone())["agents", "state_value"] for one in (estimator, resumed, fresh)
    )
    assert torch.equal(goes_on, from_saved)
    assert not torch.equal(goes_on, from_zero)


def test_a_carried_hidden_state_that_was_read_onto_the_cpu_follows_the_batch() -> None:
    """The second device is one that every machine has."""
    critic = value_critic(TEAM, GROUP, make_network(True))
    first, second = two_batches()
    estimator, resumed = estimator_of(critic), estimator_of(critic)
    estimator(first)
    resumed.load_state_dict(estimator.state_dict())
    critic.to("meta")
    assert resumed(second.to("meta"))["agents", "advantage"].is_meta


def test_batches_of_other_envs_are_an_error() -> None:
    estimator = estimator_of(value_critic(TEAM, GROUP, make_network(True)))
    first, second = two_batches()
    estimator(first)
    with pytest.raises(UserError, match="the batch has 3 envs"):
        estimator(second[:3])


def test_a_critic_is_no_parameter_of_the_estimator() -> None:
    assert not list(estimator_of(value_critic(TEAM, GROUP, make_network(False))).parameters())


def test_no_gradient_enters_a_batch() -> None:
    batch, _ = collect(TEAM, {}, *endings())
    estimator_of(value_critic(TEAM, GROUP, make_network(True)))(batch)
    assert not any(value.requires_grad for value in batch.values(True, True))


def mortal_batch() -> tuple[TeamSpec, TensorDictBase]:
    team = TeamSpec((group_spec(mask=True), group_spec("others", 2, mask=True)))
    batch, _ = collect(team, {"agents": make_actor(team["agents"])}, *endings())
    for group in team:
        ends = (torch.rand(N_ENVS, LENGTH, group.n_agents, 1) < 0.2) | batch["next", "terminated"].unsqueeze(-1)
        batch["next", group.name, "done"] = batch["next", group.name, "terminated"] = ends
        batch["next", group.name, "mask"] &= ~ends.squeeze(-1)
    return team, batch


def spoil(batch: TensorDictBase, team: TeamSpec, garbage: float) -> None:
    """Garbage wherever nobody is: before a step, and after it where an agent is neither there nor cut off."""
    for group in team:
        dead = ~batch[group.name, "mask"]
        gone = ~batch["next", group.name, "mask"] & (dead | batch["next", group.name, "terminated"].squeeze(-1))
        batch[group.name, "observation"][dead] = garbage
        batch["next", group.name, "observation"][gone] = garbage
        batch["next", group.name, "reward"][dead] = garbage


@pytest.mark.parametrize("garbage", [1e30, torch.inf, torch.nan])
@pytest.mark.parametrize("normalize", ["joint", "agent", "none"])
@pytest.mark.parametrize(("sees", "recurrent"), [("team", False), ("team", True), ("observation", True)])
def test_the_dead_change_no_advantage_and_no_statistic(
    sees: Any, recurrent: bool, normalize: Any, garbage: float
) -> None:
    team, batch = mortal_batch()
    critic = value_critic(team, team["agents"], make_network(recurrent), sees=sees)
    results = []
    for fill in (0.0, garbage):
        norm = ValueNorm()
        spoil(batch, team, fill)
        estimator_of(critic, normalize=normalize, value_norm=norm)(batch)
        alive = batch["agents", "mask"].unsqueeze(-1)
        results.append([batch["agents", "advantage"], batch["agents", "value_target"][alive], *norm.buffers()])
    for clean, dirty in zip(*results, strict=True):
        assert torch.equal(clean, dirty)


def test_statistics_and_normalization_are_over_the_living() -> None:
    team, batch = mortal_batch()
    critic = value_critic(team, team["agents"], make_network(False))
    norm, expected = ValueNorm(), ValueNorm()
    estimator_of(critic, normalize="joint", value_norm=norm)(batch)
    alive = batch["agents", "mask"].unsqueeze(-1)
    assert not alive.all()
    advantage, target = batch["agents", "advantage"][alive], batch["agents", "value_target"][alive]
    expected.update(target)
    torch.testing.assert_close(norm.state_dict(), expected.state_dict())
    raw = target - batch["agents", "state_value"][alive]
    torch.testing.assert_close(advantage, (raw - raw.mean()) / raw.std())


def test_a_teams_value_is_not_broadcast_over_agents() -> None:
    team, batch = mortal_batch()
    inputs = team_observation(team, team["agents"])
    critic = AgentNetwork(inputs, MultiAgentMLP(inputs.features, 1, 1), [KEYS.state_value])
    with pytest.raises(UserError, match="state_value"):
        estimator_of(critic)(batch)


def test_a_critic_that_knows_no_masks_spoils_only_the_values_of_the_dead() -> None:
    team, batch = mortal_batch()
    blind = TeamSpec((group_spec(),))
    critic = value_critic(blind, blind["agents"], make_network(False), sees="observation")
    results = []
    for fill in (0.0, torch.nan):
        spoil(batch, team, fill)
        results.append(estimator_of(critic, normalize="joint")(batch)["agents", "advantage"].clone())
    assert torch.equal(*results)


def test_a_team_critic_sees_in_the_next_step_who_has_just_arrived() -> None:
    team = TeamSpec((group_spec(mask=True),))
    batch, _ = collect(team, {}, *(flag & False for flag in endings()))
    critic = value_critic(team, team["agents"], make_network(False), heads="one")
    batch["agents", "mask"] = torch.ones(N_ENVS, LENGTH, 3, dtype=torch.bool)
    batch["agents", "mask"][:, 0, 1] = False
    batch["next", "agents", "mask"] = torch.ones(N_ENVS, LENGTH, 3, dtype=torch.bool)
    estimator_of(critic, gamma=1.0, lmbda=0.0)(batch)
    next_value = batch["agents", "value_target"] - batch["next", "agents", "reward"]
    torch.testing.assert_close(next_value[:, 0, 0], batch["agents", "state_value"][:, 1, 0])


def test_a_mask_is_not_broadcast_over_agents() -> None:
    _, batch = mortal_batch()
    critic = value_critic(TeamSpec((GROUP,)), GROUP, make_network(False), sees="observation")
    batch["agents", "mask"] = batch["agents", "mask"][..., :1]
    with pytest.raises(UserError, match=r"'mask'\): expected bool \[4, 7, n_agents=3\], found bool \[4, 7, 1\]"):
        estimator_of(critic)(batch)


@pytest.mark.parametrize("missing", [("next", "agents", "reward"), ("next", "done"), ("next", "terminated"), "is_init"])
def test_missing_entries_are_named(missing: Any) -> None:
    batch, _ = collect(TEAM, {}, *endings())
    with pytest.raises(UserError, match=re.escape(f"key {missing!r} is missing")):
        estimator_of(value_critic(TEAM, GROUP, make_network(True)))(batch.exclude(missing))


def test_a_teams_reward_is_not_broadcast_over_agents() -> None:
    batch, _ = collect(TEAM, {}, *endings())
    batch["next", "agents", "reward"] = batch["next", "agents", "reward"][:, :, :1]
    with pytest.raises(UserError, match=r"'reward'\): expected float32 \[4, 7, n_agents=3, 1\], found"):
        estimator_of(value_critic(TEAM, GROUP, make_network(False)))(batch)


def test_a_team_has_one_advantage_that_no_dead_agent_ends() -> None:
    flags = {"mask": [[1, 1], [1, 0], [0, 0]], "agent_done": [[0, 1], [1, 0], [0, 0]]}
    flags["agent_terminated"] = flags["agent_done"]
    # Rewards (2 + 4) / 2, then (2 + 0) / 2: the dead agent's 100 counts as 0. Then nobody is left, and nothing is paid.
    rewards = [[2, 4], [2, 100], [100, 100]]
    data = written([[1, 1], [4, 4], [6, 6]], [[4, 4], [6, 6], [8, 8]], rewards, **flags)
    # A critic that sees no mask: its value is the team's. Deltas 3 + 0.5*4 - 1, 1 + 0.5*6 - 4, 0 + 0.5*8 - 6.
    critic = identity_critic(identity_group())
    estimator_of(critic, of_team=True)(data)
    assert data["agents", "advantage"][0, :, :, 0].tolist() == [[3.5, 3.5], [-1.0, -1.0], [-2.0, -2.0]]
    assert data["agents", "value_target"][0, :, :, 0].tolist() == [[4.5, 4.5], [3.0, 3.0], [4.0, 4.0]]
    assert data["agents", "state_value"][0, :, 0, 0].tolist() == [1, 4, 6]


def test_the_teams_flags_end_its_trace() -> None:
    data = written([[2, 4], [3, 5]], [[10, 20], [6, 8]], [[1, 3], [2, 4]], done=[1, 0])
    # Values are the agents' mean: 2 + 0.5*15 - 3, and 3 + 0.5*7 - 4.
    assert advantages(data, of_team=True) == [[6.5, 6.5], [2.5, 2.5]]
    data["next", "terminated"] = data["next", "done"]
    assert advantages(data, of_team=True) == [[-1, -1], [2.5, 2.5]]


@pytest.mark.parametrize("normalize", ["joint", "agent"])
def test_a_teams_advantages_are_normalized_over_steps_whoever_is_dead(normalize: Any) -> None:
    flags = {"mask": [[1, 1], [1, 0], [1, 0]]}
    data = written([[0, 0]] * 3, [[0, 0]] * 3, [[2, 0], [4, 0], [12, 0]], **flags, done=[1, 1, 1])
    found = advantages(data, of_team=True, normalize=normalize)
    expected = (torch.tensor([1.0, 2.0, 6.0]) - 3) / torch.tensor([1.0, 2.0, 6.0]).std()
    assert [row[0] for row in found] == pytest.approx(expected.tolist())
    assert [row[1] for row in found] == [row[0] for row in found]
    padded = written([[0, 0]] * 4, [[0, 0]] * 4, [[2, 0], [4, 0], [12, 0], [99, 99]], done=[1, 1, 1, 1])
    padded["collector", "mask"] = torch.tensor([[True, True, True, False]])
    found = advantages(padded, of_team=True, normalize=normalize)
    assert [row[0] for row in found] == pytest.approx([*expected.tolist(), 0.0])


def test_a_flattened_batch_is_refused() -> None:
    env = ck.VmasEnv("navigation", num_envs=3, max_steps=10, seed=0)
    team = ck.TeamSpec.from_env(env)
    critic = ck.value_critic(team, team["agents"], ck.MultiAgentMLP)
    estimator = ck.AdvantageEstimator(critic, team["agents"].keys, gamma=0.9, lmbda=0.9)
    batch = env.rollout(4)
    with pytest.raises(UserError, match=r"row 3 of a batch \[12\] does not end, and row 4 has another .*observation"):
        estimator(batch.reshape(-1))
    alone = estimator(batch[1].clone())["agents", "value_target"]
    torch.testing.assert_close(alone, estimator(batch)["agents", "value_target"][1])
    with pytest.raises(
        UserError, match=r"batch \[4, 3\] are named \['time', None\]: expected time last, \[n_envs, T\]"
    ):
        estimator(batch.transpose(0, 1))
    # Targets of one step do not depend on the order of rows.
    one_step = ck.AdvantageEstimator(critic, team["agents"].keys, gamma=0.9, lmbda=0.0)
    flat = one_step(batch.reshape(-1))["agents", "value_target"]
    torch.testing.assert_close(flat.reshape(3, 4, 4, 1), one_step(batch)["agents", "value_target"])


def test_keys_that_are_a_groups_name_are_refused() -> None:
    critic = value_critic(TEAM, GROUP, make_network(False))
    keys: Any = "agents"
    with pytest.raises(
        UserError, match=r"keys='agents': expected GroupKeys; pass those of the group, such as team\['ag"
    ):
        AdvantageEstimator(critic, keys, gamma=0.9, lmbda=0.9)


@pytest.mark.parametrize("steps", [1, 4])
def test_the_steps_of_one_env_are_taken(steps: int) -> None:
    env = ck.VmasEnv("navigation", num_envs=2, max_steps=3, seed=0)
    team = ck.TeamSpec.from_env(env)
    estimator = ck.AdvantageEstimator(
        ck.value_critic(team, team["agents"], ck.MultiAgentMLP), team["agents"].keys, gamma=0.9, lmbda=0.9
    )
    batch = env.rollout(steps, break_when_any_done=False)[0].clone()
    assert estimator(batch)["agents", "advantage"].shape == (steps, 4, 1)
    padded = torch.cat([batch, torch.zeros_like(batch)])
    padded["collector", "mask"] = torch.arange(2 * steps) < steps
    estimator(padded)
