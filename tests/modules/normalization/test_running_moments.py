"""Running mean and variance against those of all values at once."""

from __future__ import annotations

import pytest
import torch

from ctde_kit.errors import UserError
from ctde_kit.modules import RunningMoments
from ctde_kit.testing import check_state


def test_batches_of_any_size_give_the_moments_of_all_values_at_once() -> None:
    moments = RunningMoments(2)
    for batch in ([[1.0, -2.0]], [[3.0, 0.0], [8.0, 7.0]], [[0.0, 1.0], [2.0, 5.0], [4.0, 1.0]]):
        moments.update(torch.tensor(batch))
    # 1 3 8 0 2 4: sum 18, squares 94; -2 0 7 1 5 1: sum 12, squares 80.
    torch.testing.assert_close(moments.mean, torch.tensor([3.0, 2.0], dtype=torch.float64))
    expected = torch.tensor([94 / 6 - 9.0, 80 / 6 - 4.0], dtype=torch.float64)
    torch.testing.assert_close(moments.variance, expected)
    values = moments(torch.tensor([[3.0, 2.0], [8.0, 7.0]]))
    torch.testing.assert_close(values, torch.stack([torch.zeros(2), 5 / expected.sqrt()]).float())


def test_values_far_from_zero_lose_no_variance() -> None:
    moments = RunningMoments(1)
    for _ in range(100):
        moments.update(torch.tensor([[1e6 - 1], [1e6], [1e6 + 1]]))
    assert moments.variance.item() == pytest.approx(2 / 3, rel=1e-9)


@pytest.mark.parametrize("garbage", [1e30, torch.inf, torch.nan])
def test_masked_values_count_nowhere(garbage: float) -> None:
    moments = RunningMoments(1)
    values = torch.tensor([[[1.0], [garbage]], [[5.0], [3.0]]])
    moments.update(values, torch.tensor([[True, False], [True, True]]))
    assert (moments.count.item(), moments.mean.item()) == (3, 3)
    assert moments.variance.item() == pytest.approx(8 / 3)
    before = {name: value.clone() for name, value in moments.state_dict().items()}
    moments.update(values, torch.zeros(2, 2, dtype=torch.bool))
    assert all(torch.equal(value, before[name]) for name, value in moments.state_dict().items())


def test_until_the_first_update_values_stay_as_they_are() -> None:
    moments = RunningMoments(2, clip=1.5)
    values = torch.tensor([[-7.0, 20.0]])
    assert torch.equal(moments(values), values)
    moments.update(torch.tensor([[-1.0, 0.0], [1.0, 2.0]]))
    assert moments(values).tolist() == [[-1.5, 1.5]]


def test_a_feature_that_never_varied_is_only_centered() -> None:
    moments = RunningMoments(2)
    for _ in range(7):
        moments.update(torch.full((5, 2), 0.1))
    torch.testing.assert_close(moments(torch.tensor([0.1, 0.4])), torch.tensor([0.0, 0.3]))
    tiny = RunningMoments(1)
    tiny.update(torch.tensor([[-1e-6], [1e-6]]))
    torch.testing.assert_close(tiny(torch.tensor([2e-6])), torch.tensor([2.0]))


def test_all_of_its_state_is_saved() -> None:
    def use(moments: RunningMoments) -> torch.Tensor:
        moments.update(torch.randn(5, 3))
        return moments(torch.ones(3))

    check_state(RunningMoments(3), use)


def test_other_shapes_are_refused() -> None:
    for values, mask in ((torch.zeros(5, 2), None), (torch.zeros(5, 3), torch.ones(3, dtype=torch.bool))):
        with pytest.raises(UserError, match=r"RunningMoments: expected values \[\*B, 3\]"):
            RunningMoments(3).update(values, mask)
