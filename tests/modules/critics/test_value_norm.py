"""Running statistics of returns."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict

from ctde_kit.errors import UserError
from ctde_kit.modules import ValueNorm, value_critic
from ctde_kit.objectives import MAPPOLoss
from ctde_kit.specs import TeamSpec
from tests.contracts.fakes import group_spec, make_actor, make_network


def test_it_changes_nothing_before_the_first_batch() -> None:
    norm, x = ValueNorm(), torch.randn(5)
    assert torch.equal(norm.normalize(x), x)
    assert torch.equal(norm.denormalize(x), x)


def test_one_batch_gives_its_own_moments() -> None:
    norm, returns = ValueNorm(), 1000 + 300 * torch.randn(5000, 3, 1)
    norm.update(returns)
    normalized = norm.normalize(returns)
    assert normalized.mean().item() == pytest.approx(0, abs=1e-4)
    assert normalized.std(correction=0).item() == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(norm.denormalize(normalized), returns, rtol=1e-5, atol=1e-3)


def test_batches_are_averaged_with_decaying_weights() -> None:
    norm = ValueNorm(decay=0.75)
    norm.update(torch.tensor([2.0, 4.0]))  # mean 3, mean square 10
    norm.update(torch.tensor([8.0, 8.0]))  # mean 8, mean square 64
    old, new = 0.25 * 0.75, 0.25  # the weights, of sum 0.4375
    mean = (3 * old + 8 * new) / 0.4375
    variance = (10 * old + 64 * new) / 0.4375 - mean**2
    assert norm.denormalize(torch.tensor(0.0)).item() == pytest.approx(mean)
    assert norm.denormalize(torch.tensor(1.0)).item() == pytest.approx(mean + variance**0.5)


def test_a_small_spread_around_a_large_mean_is_not_lost() -> None:
    norm, returns = ValueNorm(), 10_000 + torch.randn(5000)
    norm.update(returns)
    assert norm.normalize(returns).std().item() == pytest.approx(1, abs=0.01)


def test_equal_returns_do_not_divide_by_zero() -> None:
    norm = ValueNorm(epsilon=0.01)
    norm.update(torch.full((4,), 7.0))
    assert norm.normalize(torch.tensor(8.0)).item() == pytest.approx(10)


@pytest.mark.parametrize("garbage", [1e30, torch.inf, torch.nan])
def test_dead_agents_count_nowhere(garbage: float) -> None:
    masked, alive_alone = ValueNorm(), ValueNorm()
    returns = torch.tensor([[1.0], [3.0], [garbage]])
    masked.update(returns, torch.tensor([[True], [True], [False]]))
    alive_alone.update(returns[:2])
    assert torch.equal(masked.normalize(torch.arange(5.0)), alive_alone.normalize(torch.arange(5.0)))


def test_a_batch_of_the_dead_changes_nothing() -> None:
    norm, x = ValueNorm(), torch.randn(5)
    norm.update(torch.randn(4))
    before = norm.normalize(x)
    norm.update(torch.full((4,), torch.nan), torch.zeros(4, dtype=torch.bool))
    assert torch.equal(norm.normalize(x), before)


def test_a_mask_is_not_broadcast_over_agents() -> None:
    with pytest.raises(UserError, match=r"expected a mask of the returns' shape \[4, 3, 1\]"):
        ValueNorm().update(torch.randn(4, 3, 1), torch.ones(4, 1, 1, dtype=torch.bool))


def test_statistics_are_restored() -> None:
    norm, x = ValueNorm(), torch.randn(5)
    norm.update(5 + 2 * torch.randn(50))
    saved = {name: value.clone() for name, value in norm.state_dict().items()}
    before = norm.normalize(x)
    norm.update(100 * torch.randn(50))
    assert not torch.equal(norm.normalize(x), before)
    norm.load_state_dict(saved)
    assert torch.equal(norm.normalize(x), before)


def test_a_critic_learns_large_returns_in_normalized_units() -> None:
    group = group_spec()
    team, norm = TeamSpec((group,)), ValueNorm()
    critic = value_critic(team, group, make_network(False), sees="observation")
    loss = MAPPOLoss(make_actor(group), critic, clip_value=None, value_norm=norm)
    observation = torch.randn(256, 3, 5)
    target = 1000 + 300 * observation[..., :1]
    data = TensorDict({"agents": {"observation": observation, "action": torch.zeros(256, 3, dtype=torch.long)}}, [256])
    data["agents", "action_log_prob"] = torch.zeros(256, 3)
    data["agents", "advantage"] = data["agents", "state_value"] = torch.zeros(256, 3, 1)
    data["agents", "value_target"] = target
    norm.update(target)
    optimizer = torch.optim.Adam(critic.parameters(), 0.01)
    for _ in range(300):
        optimizer.zero_grad()
        loss(data)["loss_critic"].backward()
        optimizer.step()
    error = norm.denormalize(critic(data)["agents", "state_value"]) - target
    assert error.square().mean().sqrt() < 0.1 * 300
