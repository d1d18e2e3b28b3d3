"""Statistics over the entries that count."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict import TensorDict

from ctde_kit.entries import agent_flags, check_same_shape
from ctde_kit.errors import UserError
from ctde_kit.keys import GroupKeys
from ctde_kit.objectives import masked_mean, normalize_advantage

SHAPE = (4, 7, 3, 1)
GARBAGE = [1e30, torch.inf, torch.nan]


def advantage() -> torch.Tensor:
    """Agents of different scale and location."""
    return torch.randn(SHAPE) * torch.tensor([1.0, 5.0, 20.0]).reshape(3, 1) + torch.arange(3.0).reshape(3, 1)


def test_the_masked_mean_is_over_what_counts() -> None:
    x = torch.tensor([[1.0, 2.0], [6.0, torch.nan]])
    assert masked_mean(x, torch.tensor([[True, True], [True, False]])).item() == 3
    assert masked_mean(x[:1], None).item() == 1.5
    assert masked_mean(x, torch.zeros(2, 2, dtype=torch.bool)).item() == 0


def test_the_masked_mean_gives_no_gradient_to_what_does_not_count() -> None:
    x = torch.tensor([1.0, torch.inf], requires_grad=True)
    masked_mean(x, torch.tensor([True, False])).backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1, 0]


def test_a_mask_is_not_broadcast_over_agents() -> None:
    with pytest.raises(UserError, match=r"'mask': \(4, 1\)"):
        masked_mean(torch.ones(4, 3), torch.ones(4, 1, dtype=torch.bool))
    with pytest.raises(UserError, match=r"'mask': \(4, 1, 1\)"):
        normalize_advantage(torch.ones(4, 3, 1), torch.ones(4, 1, 1, dtype=torch.bool))


def test_joint_normalization_is_over_all_entries() -> None:
    x = advantage()
    torch.testing.assert_close(normalize_advantage(x), (x - x.mean()) / x.std())


def test_normalization_by_agent_is_over_each_agents_entries() -> None:
    x = advantage()
    expected = torch.stack([(part - part.mean()) / part.std() for part in x.unbind(2)], 2)
    torch.testing.assert_close(normalize_advantage(x, over="agent"), expected)


def test_no_normalization_changes_nothing_that_counts() -> None:
    x, mask = advantage(), torch.rand(SHAPE) < 0.7
    assert torch.equal(normalize_advantage(x, over="none"), x)
    assert torch.equal(normalize_advantage(x, mask, "none"), x.masked_fill(~mask, 0))


@pytest.mark.parametrize("garbage", GARBAGE)
def test_the_dead_skew_no_joint_normalization(garbage: float) -> None:
    x, mask = advantage(), torch.rand(SHAPE) < 0.7
    kept = x[mask]
    x[~mask] = garbage
    normalized = normalize_advantage(x, mask)
    torch.testing.assert_close(normalized[mask], (kept - kept.mean()) / kept.std())
    assert not normalized[~mask].any()


@pytest.mark.parametrize("garbage", GARBAGE)
def test_the_dead_skew_no_normalization_by_agent(garbage: float) -> None:
    x, mask = advantage(), torch.rand(SHAPE) < 0.7
    x[~mask] = garbage
    normalized = normalize_advantage(x, mask, "agent")
    for agent in range(3):
        kept = x[:, :, agent][mask[:, :, agent]]
        expected = (kept - kept.mean()) / kept.std()
        torch.testing.assert_close(normalized[:, :, agent][mask[:, :, agent]], expected)
    assert not normalized[~mask].any()


@pytest.mark.parametrize("over", ["joint", "agent", "none"])
def test_an_agent_that_is_always_dead_gives_zeros(over: str) -> None:
    mask = torch.ones(SHAPE, dtype=torch.bool)
    mask[:, :, 1] = False
    normalized = normalize_advantage(advantage(), mask, over)
    assert normalized.isfinite().all()
    assert not normalized[:, :, 1].any()


def test_equal_advantages_stay_finite() -> None:
    assert not normalize_advantage(torch.full(SHAPE, 3.0)).any()


def test_an_unknown_normalization_is_an_error() -> None:
    with pytest.raises(UserError, match="joint, agent, none"):
        normalize_advantage(advantage(), over="agents")


def test_shapes_are_named_where_they_differ() -> None:
    check_same_shape(one=torch.ones(4, 3), two=torch.zeros(4, 3))
    with pytest.raises(UserError, match=r"'one': \(4, 3\), 'two': \(4, 1\)"):
        check_same_shape(one=torch.ones(4, 3), two=torch.zeros(4, 1))


def flags(**entries: list) -> TensorDict:
    data = TensorDict({}, [2])
    for name, values in entries.items():
        key = ("next", *name.split("_")) if "_" in name else ("next", name)
        data.set(key, torch.tensor(values).bool().unsqueeze(-1))
    return data


def test_an_agent_is_done_with_the_team_or_by_itself() -> None:
    data = flags(done=[0, 1], terminated=[0, 0], agents_done=[[1, 0, 0], [0, 0, 0]], agents_terminated=[[1, 0, 0]] * 2)
    done, terminated = agent_flags(data, GroupKeys(), torch.zeros(2, 3, 1))
    assert done.squeeze(-1).tolist() == [[True, False, False], [True, True, True]]
    assert terminated.squeeze(-1).tolist() == [[True, False, False]] * 2


def test_the_teams_flags_are_everyones() -> None:
    done, terminated = agent_flags(flags(done=[1, 0], terminated=[0, 0]), GroupKeys(), torch.zeros(2, 3, 1))
    assert done.squeeze(-1).tolist() == [[True] * 3, [False] * 3]
    assert not terminated.any()


def test_missing_flags_are_named() -> None:
    with pytest.raises(UserError, match=r"key \('next', 'terminated'\) is missing"):
        agent_flags(flags(done=[0, 1]), GroupKeys(), torch.zeros(2, 3, 1))


def test_one_agents_flag_is_not_everyones() -> None:
    data = flags(done=[0, 0], terminated=[0, 0], agents_done=[[1], [0]])
    with pytest.raises(UserError, match=r"one shape for reward, \('agents', 'done'\)"):
        agent_flags(data, GroupKeys(), torch.zeros(2, 3, 1))


@pytest.mark.parametrize("over", ["joint", "agent"])
@pytest.mark.parametrize("constant", [0.1, -3.3, 7e-9, 1e20, 0.0])
def test_a_constant_becomes_zero(constant: float, over: Any) -> None:
    """Its mean is not itself, by rounding; that must not become an advantage of 1."""
    x = torch.full((100, 60, 3, 1), constant)
    assert not normalize_advantage(x, over=over).any()
    mask = torch.rand(x.shape) < 0.5
    assert not normalize_advantage(torch.where(mask, x, torch.randn(x.shape)), mask, over).any()


@pytest.mark.parametrize("over", ["joint", "agent"])
@pytest.mark.parametrize("scale", [1e13, 1e20, 1e30])
def test_huge_advantages_are_not_zeroed(scale: float, over: Any) -> None:
    x = torch.randn(50, 3, 1)
    torch.testing.assert_close(normalize_advantage(x * scale, over=over), normalize_advantage(x, over=over))


def test_ordinary_advantages_keep_every_bit() -> None:
    x = torch.randn(50, 3, 1) * 1e4
    centered = x - x.sum() / x.numel()
    expected = centered / ((centered.square().sum() / (x.numel() - 1)).sqrt() + 1e-8)
    assert torch.equal(normalize_advantage(x), expected)
