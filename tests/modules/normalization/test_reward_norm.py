"""The scale of rewards against discounted sums that are computed by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from ctde_kit.errors import UserError
from ctde_kit.keys import PADDING_MASK
from ctde_kit.modules import RewardNorm, VDNMixer, action_value_critic, value_critic
from ctde_kit.objectives import AdvantageEstimator, MADDPGLoss, QMixLoss, TeamReward
from ctde_kit.specs import TeamSpec
from ctde_kit.testing import check_state
from tests.contracts.fakes import collect, endings, group_spec, make_actor, make_network, make_q_actor
from tests.objectives.maddpg.test_loss import TEAMS, make

REWARD = ("next", "agents", "reward")
TEAM = TeamSpec((group_spec("agents", 2),))
MORTAL = TeamSpec((group_spec("agents", 2, mask=True),))


def batch(reward: Any, done: list[list[int]], **entries: Any) -> TensorDict:
    """Rewards ``[n_envs, T, n_agents]`` and the team's ``done`` ``[n_envs, T]``."""
    rewards = torch.tensor(reward).unsqueeze(-1)
    flags = torch.tensor(done, dtype=torch.bool).unsqueeze(-1)
    data = TensorDict({REWARD: rewards, ("next", "done"): flags, ("next", "terminated"): flags}, flags.shape[:2])
    for name, value in entries.items():
        data.set({"mask": ("agents", "mask"), "padding": PADDING_MASK}.get(name, name), torch.tensor(value))
    return data


def deviation(*sums: float) -> Tensor:
    return torch.tensor(sums, dtype=torch.float64).std(correction=0)


def test_the_scale_is_the_deviation_of_discounted_sums_which_go_on_across_batches() -> None:
    norm = RewardNorm(TEAM, gamma=0.5)
    first = batch([[[2.0, 0.0], [4.0, 1.0]], [[6.0, 0.0], [0.0, 8.0]]], [[0, 0], [1, 0]])
    assert norm(first) is first
    # Env 0: 2, 4 + 1 = 5; and 0, 1. Env 1 ends after its first step: 6, 0; and 0, 8.
    sums = [2, 5, 0, 1, 6, 0, 0, 8]
    torch.testing.assert_close(norm.scale("agents"), deviation(*sums))
    norm(batch([[[0.0, 0.0]], [[1.0, 2.0]]], [[0], [0]]))
    sums += [2.5, 0.5, 1, 6]
    torch.testing.assert_close(norm.scale("agents"), deviation(*sums))
    normalized = norm.normalize(first)
    torch.testing.assert_close(normalized[REWARD], (first[REWARD] / deviation(*sums)).float())
    assert first[REWARD].max() == 8


def test_dead_agents_count_nowhere_and_begin_anew() -> None:
    norm = RewardNorm(MORTAL, gamma=0.5)
    alive = [[[True, True], [True, False], [True, True]]]
    norm(batch([[[2.0, 4.0], [2.0, torch.nan], [2.0, 3.0]]], [[0, 0, 0]], mask=alive))
    torch.testing.assert_close(norm.scale("agents"), deviation(2, 3, 3.5, 4, 3))


def test_an_agents_own_end_and_a_reset_without_one_begin_a_new_sum() -> None:
    norm = RewardNorm(TEAM, gamma=0.5)
    data = batch([[[2.0, 4.0], [2.0, 4.0], [2.0, 4.0]]], [[0, 0, 0]], is_init=[[[True], [False], [True]]])
    own = torch.tensor([[[False, True], [False, False], [False, False]]]).unsqueeze(-1)
    norm(data.set(("next", "agents", "done"), own))
    torch.testing.assert_close(norm.scale("agents"), deviation(2, 3, 2, 4, 4, 4))


def test_padding_counts_nowhere_and_padded_rows_stand_alone() -> None:
    norm = RewardNorm(TEAM, gamma=0.5)
    padded = batch([[[2.0, 4.0], [torch.inf, torch.inf]]], [[0, 0]], padding=[[True, False]])
    norm(norm(padded))
    torch.testing.assert_close(norm.scale("agents"), deviation(2, 4, 2, 4))


def test_a_mixed_team_has_one_scale() -> None:
    norm = RewardNorm(TEAM, gamma=0.5, of_team=True)
    data = norm(TeamReward(TEAM, "sum")(batch([[[2.0, 4.0], [1.0, 2.0], [0.0, 1.0]]], [[0, 1, 0]])))
    scale = deviation(6, 6, 1)
    torch.testing.assert_close(norm.scale(), scale)
    normalized = norm.normalize(data)
    torch.testing.assert_close(normalized["next", "reward"].flatten(), (torch.tensor([6, 3, 1]) / scale).float())
    assert torch.equal(normalized[REWARD], data[REWARD])


def test_each_group_has_a_scale_of_its_own() -> None:
    team = TeamSpec((group_spec("wolves", 2), group_spec("sheep", 3)))
    norm = RewardNorm(team, gamma=0.9)
    done, terminated = endings()
    data, _ = collect(team, {group.name: make_actor(group) for group in team}, done, terminated)
    data["next", "sheep", "reward"] *= 100
    norm(data)
    assert 20 < norm.scale("sheep") / norm.scale("wolves") < 500


def test_until_rewards_vary_they_stay_as_they_are() -> None:
    norm = RewardNorm(TEAM, gamma=0.5)
    data = batch([[[3.0, 3.0]]], [[1]])
    assert torch.equal(norm.normalize(norm(data))[REWARD], data[REWARD])


def test_running_sums_are_saved() -> None:
    def use(norm: RewardNorm) -> Tensor:
        norm(batch(torch.randn(2, 3, 2).tolist(), [[0, 1, 0], [0, 0, 0]]))
        return norm.scale("agents")

    check_state(RewardNorm(TEAM, gamma=0.9), use)
    used, fresh = RewardNorm(TEAM, gamma=0.9), RewardNorm(TEAM, gamma=0.9)
    use(used)
    fresh.load_state_dict(used.state_dict())
    following = batch([[[1.0, 2.0]], [[3.0, 4.0]]], [[0], [0]])
    assert used(following) is fresh(following)
    assert torch.equal(used.scale("agents"), fresh.scale("agents"))


def test_other_batches_are_refused() -> None:
    norm = RewardNorm(TEAM, gamma=0.5)
    data = norm(batch([[[2.0, 0.0]], [[6.0, 0.0]]], [[0], [0]]))
    with pytest.raises(UserError, match="the batch has 1 envs, the running sums 2"):
        norm(data[:1])
    with pytest.raises(UserError, match=r"expected a fresh batch \[n_envs, T\], found \[2\]"):
        norm(data[:, 0])
    with pytest.raises(UserError, match=r"gamma=1\.5"):
        RewardNorm(TEAM, gamma=1.5)


def halved(team: TeamSpec, of_team: bool = False) -> RewardNorm:
    """A norm whose every scale is 2."""
    norm = RewardNorm(team, gamma=0.9, of_team=of_team)
    for moments in norm.moments.values():
        moments.update(torch.tensor([[-2.0], [2.0]]))
    return norm


def with_half_the_rewards(data: TensorDictBase, team: TeamSpec) -> TensorDictBase:
    copy = data.copy()
    for key in ("reward", *(group.keys.reward for group in team)):
        full = ("next", key) if isinstance(key, str) else ("next", *key)
        if copy.get(full, None) is not None:
            copy.set(full, copy.get(full) / 2)
    return copy


def test_advantages_are_of_normalized_rewards() -> None:
    team = TeamSpec((group_spec("agents", 3, mask=True),))
    done, terminated = endings()
    data, _ = collect(team, {"agents": make_actor(team["agents"])}, done, terminated)
    critic = value_critic(team, team["agents"], make_network(False))
    options: Any = {"gamma": 0.9, "lmbda": 0.8}
    keys = team["agents"].keys
    plain = AdvantageEstimator(critic, keys, **options)(with_half_the_rewards(data, team))
    raw = data[REWARD].clone()
    normalized = AdvantageEstimator(critic, keys, reward_norm=halved(team), **options)(data)
    torch.testing.assert_close(normalized[keys.value_target], plain[keys.value_target])
    assert torch.equal(normalized[REWARD], raw)
    with pytest.raises(UserError, match="reward_norm: the loss learns from"):
        AdvantageEstimator(critic, keys, reward_norm=halved(team, of_team=True), **options)(data)


@pytest.mark.parametrize("mixed", [False, True])
def test_action_values_are_of_normalized_rewards(mixed: bool) -> None:
    team = TeamSpec((group_spec("wolves", 2), group_spec("sheep", 3)))
    done, terminated = endings()
    actors = {group.name: make_q_actor(group) for group in team}
    data = TeamReward(team, "sum")(collect(team, actors, done, terminated)[0])
    losses = [
        QMixLoss(actors, VDNMixer(team) if mixed else None, gamma=0.9, reward_norm=norm)
        for norm in (None, halved(team, of_team=mixed))
    ]
    expected = losses[0](with_half_the_rewards(data, team))
    torch.testing.assert_close(losses[1](data)["target_value"], expected["target_value"])
    assert not torch.allclose(losses[0](data)["target_value"], expected["target_value"])
    other = QMixLoss(actors, VDNMixer(team) if mixed else None, gamma=0.9, reward_norm=halved(team, of_team=not mixed))
    with pytest.raises(UserError, match=r"reward_norm: the loss learns from .*reward.*of_team=True for a loss with a"):
        other(data)


@pytest.mark.parametrize("mixed", [False, True])
def test_critics_of_actions_learn_normalized_rewards(mixed: bool) -> None:
    team = TEAMS["two"]("continuous")
    _, actors, _ = make(team)
    critics = {
        group.name: action_value_critic(
            team, group, make_network(False), **({"sees": "observation", "heads": "agent"} if mixed else {})
        )
        for group in team
    }
    done, terminated = endings()
    data = TeamReward(team, "mean")(collect(team, actors, done, terminated)[0]).reshape(-1)
    losses = [
        MADDPGLoss(actors, critics, VDNMixer(team) if mixed else None, gamma=0.9, reward_norm=norm)
        for norm in (None, halved(team, of_team=mixed))
    ]
    expected = losses[0](with_half_the_rewards(data, team))["loss_value"]
    torch.testing.assert_close(losses[1](data)["loss_value"], expected)
    assert not torch.allclose(losses[0](data)["loss_value"], expected)
