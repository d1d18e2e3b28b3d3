"""Action distributions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import (
    AffineTransform,
    Categorical,
    Distribution,
    Independent,
    Normal,
    TanhTransform,
    TransformedDistribution,
)

from ctde_kit.graph import trace
from ctde_kit.modules import MaskedCategorical, MaskedMultiCategorical, TanhNormal

LOW, HIGH = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 4.0])


def squashed(loc: Tensor, scale: Tensor) -> Distribution:
    tanh = [TanhTransform(), AffineTransform((LOW + HIGH) / 2, (HIGH - LOW) / 2)]
    return Independent(TransformedDistribution(Normal(loc, scale), tanh), 1)


def entropy_by_integration(loc: float, scale: float) -> Tensor:
    """Of one dimension squashed into [-1, 1], on a grid over the Gaussian."""
    x = torch.linspace(loc - 9 * scale, loc + 9 * scale, 200_001, dtype=torch.float64)
    log_density = Normal(loc, scale).log_prob(x)
    log_slope = torch.log(1 - x.tanh().square())
    return torch.trapezoid(log_density.exp() * (log_slope - log_density), x)


def test_log_prob_is_that_of_a_squashed_gaussian() -> None:
    loc, scale = torch.randn(50, 2), torch.rand(50, 2) + 0.2
    dist = TanhNormal(loc, scale, LOW, HIGH)
    action = dist.sample()
    torch.testing.assert_close(dist.log_prob(action), squashed(loc, scale).log_prob(action), rtol=1e-3, atol=1e-3)


def test_the_density_integrates_to_one_within_the_bounds() -> None:
    actions = torch.linspace(2.0 + 1e-4, 6.0 - 1e-4, 100_001).unsqueeze(-1)
    dist = TanhNormal(torch.tensor([0.3]), torch.tensor([0.7]), torch.tensor([2.0]), torch.tensor([6.0]))
    assert torch.trapezoid(dist.log_prob(actions).exp(), actions.squeeze(-1)).item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("loc", [-50.0, -6.0, 0.0, 6.0, 50.0])
@pytest.mark.parametrize("half", [1e-4, 1.0, 100.0])
def test_samples_stay_within_bounds_and_have_a_finite_log_prob(loc: float, half: float) -> None:
    low, high = torch.tensor([3.0 - half]), torch.tensor([3.0 + half])
    dist = TanhNormal(torch.full((1000, 1), loc), torch.ones(1000, 1), low, high)
    for action in (dist.sample(), dist.deterministic_sample):
        assert ((action >= low) & (action <= high)).all()
        assert dist.log_prob(action).isfinite().all()


def test_bounds_are_each_agents_own() -> None:
    low, high = torch.tensor([[-1.0, 0.0], [5.0, 6.0], [8.0, 9.0]]), torch.tensor([[0.0, 1.0], [6.0, 7.0], [9.0, 10.0]])
    dist = TanhNormal(torch.zeros(4, 3, 2), torch.ones(4, 3, 2), low, high)
    action = dist.sample((100,))
    assert ((action > low) & (action < high)).all()
    assert torch.equal(dist.deterministic_sample, ((low + high) / 2).expand(4, 3, 2))
    assert dist.log_prob(action).shape == (100, 4, 3)


def test_the_greedy_action_is_the_squashed_location() -> None:
    dist = TanhNormal(torch.tensor([0.5, -0.5]), torch.ones(2), LOW, HIGH)
    expected = torch.tensor([0.5, -0.5]).tanh() * torch.tensor([1.0, 2.0]) + torch.tensor([0.0, 2.0])
    torch.testing.assert_close(dist.deterministic_sample, expected)
    torch.testing.assert_close(dist.mode, expected)


def test_a_squashed_gaussian_has_no_closed_form_of_the_entropy() -> None:
    with pytest.raises(NotImplementedError):
        TanhNormal(torch.zeros(2), torch.ones(2)).entropy()


@pytest.mark.parametrize(("loc", "scale"), [(0.0, 0.5), (0.8, 1.0), (-2.0, 0.3)])
def test_sampled_entropy_approaches_the_integral(loc: float, scale: float) -> None:
    low, high = torch.tensor([0.0, -1.0]), torch.tensor([6.0, 1.0])
    dist = TanhNormal(torch.full((2,), loc), torch.full((2,), scale), low, high)
    expected = 2 * entropy_by_integration(loc, scale) + torch.tensor(3.0).log()
    assert dist.sampled_entropy(100_000).item() == pytest.approx(expected.item(), abs=0.02)


def test_more_samples_estimate_the_entropy_better() -> None:
    dist = TanhNormal(torch.zeros(2000, 1), torch.ones(2000, 1))
    assert dist.sampled_entropy(16).std() < dist.sampled_entropy(1).std() / 3


@pytest.mark.parametrize("loc", [1.0, 9.0, 30.0])
def test_more_entropy_always_means_less_saturation(loc: float) -> None:
    location = torch.tensor([loc], requires_grad=True)
    TanhNormal(location, torch.tensor([0.5])).sampled_entropy(1000).backward()
    assert location.grad is not None
    assert location.grad.item() < -1


MASK = torch.tensor([True, False, True, False])
LOGITS = torch.tensor([0.1, 5.0, -0.3, 2.0])


def test_masked_actions_are_never_chosen() -> None:
    dist = MaskedCategorical(LOGITS, MASK)
    assert set(dist.sample((500,)).tolist()) == {0, 2}
    assert dist.deterministic_sample.item() == dist.mode.item() == 0


def test_what_is_allowed_is_a_categorical_of_its_own() -> None:
    masked, allowed = MaskedCategorical(LOGITS, MASK), Categorical(logits=LOGITS[MASK])
    torch.testing.assert_close(masked.log_prob(torch.tensor([0, 2])), allowed.log_prob(torch.tensor([0, 1])))
    torch.testing.assert_close(masked.entropy(), allowed.entropy())


def test_without_a_mask_it_is_a_categorical() -> None:
    action = torch.arange(4)
    torch.testing.assert_close(MaskedCategorical(LOGITS).log_prob(action), Categorical(logits=LOGITS).log_prob(action))


@pytest.mark.parametrize("one_hot", [False, True])
def test_who_may_do_nothing_does_the_no_op_for_sure(one_hot: bool) -> None:
    dist = MaskedCategorical(LOGITS.expand(3, 4), torch.zeros(3, 4, dtype=torch.bool), one_hot)
    no_op = torch.tensor([1, 0, 0, 0]).expand(3, 4) if one_hot else torch.zeros(3, dtype=torch.long)
    assert torch.equal(dist.sample(), no_op)
    assert torch.equal(dist.deterministic_sample, no_op)
    assert dist.log_prob(no_op).tolist() == dist.entropy().tolist() == [0, 0, 0]


def test_an_action_that_is_not_allowed_has_a_finite_log_prob() -> None:
    assert -torch.inf < MaskedCategorical(LOGITS, MASK).log_prob(torch.tensor(1)) < -1e30


@pytest.mark.parametrize("allowed", [0, 1, 2, 4])
def test_gradients_under_a_mask_are_finite_and_none_for_masked_logits(allowed: int) -> None:
    logits = LOGITS.clone().requires_grad_()
    mask = torch.arange(4) < allowed
    dist = MaskedCategorical(logits, mask)
    (dist.log_prob(torch.tensor(0)) + dist.entropy()).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert not logits.grad[~mask].any()
    assert bool(logits.grad.any()) == (allowed > 1)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_one_hot_actions_are_indices_in_another_form(dtype: Any) -> None:
    dist = MaskedCategorical(LOGITS, one_hot=True)
    action = dist.sample((6,))
    assert action.shape == (6, 4)
    assert (action.sum(-1) == 1).all()
    torch.testing.assert_close(dist.log_prob(action.to(dtype)), Categorical(logits=LOGITS).log_prob(action.argmax(-1)))


@pytest.mark.parametrize("one_hot", [False, True])
def test_choosing_is_one_graph(one_hot: bool) -> None:
    def choose(leaves: list[Tensor]) -> list[Tensor]:
        dist = MaskedCategorical(*leaves, one_hot)
        return [dist.sample(), dist.mode, dist.log_prob(dist.mode)]

    leaves = [torch.randn(5, 4), torch.rand(5, 4) < 0.5]
    graph = trace(choose, leaves)
    changed = [leaves[0].flip(0), leaves[1].flip(0)]
    sample, *found = graph([*changed, *graph.draw()])
    _, *expected = choose(changed)
    assert [value.dtype for value in (sample, *found)] == [value.dtype for value in (expected[0], *expected)]
    for value, like in zip(found, expected, strict=True):
        torch.testing.assert_close(value, like)


def test_several_choices_are_independent() -> None:
    logits = torch.randn(7, 5)
    dist = MaskedMultiCategorical(logits, (2, 3))
    parts = [Categorical(logits=part) for part in logits.split([2, 3], -1)]
    action = dist.sample()
    assert action.shape == (7, 2)
    torch.testing.assert_close(dist.log_prob(action), sum(p.log_prob(a) for p, a in zip(parts, action.T, strict=True)))
    torch.testing.assert_close(dist.entropy(), parts[0].entropy() + parts[1].entropy())
    torch.testing.assert_close(dist.mode, torch.stack([part.logits.argmax(-1) for part in parts], -1))


def test_each_choice_has_its_own_mask() -> None:
    mask = torch.tensor([[False, True, False, False, False]])
    dist = MaskedMultiCategorical(torch.randn(1, 5), (2, 3), mask)
    assert dist.sample((50,)).unique(dim=0).tolist() == [[[1, 0]]]
    assert dist.log_prob(torch.tensor([[1, 0]])).item() == dist.entropy().item() == 0
