"""Prioritized sampling: frequencies, importance weights and state."""

from __future__ import annotations

import pytest
import torch

from ctde_kit.data import Prioritized, PrioritySampler

CAPACITY = 3000  # three blocks


class Stored:
    """A storage of which ``n`` items are filled."""

    def __init__(self, n: int):
        self.n = n

    def __len__(self) -> int:
        return self.n


def make(n: int = CAPACITY, alpha: float = 1.0, beta: float = 1.0) -> PrioritySampler:
    sampler = PrioritySampler(CAPACITY, Prioritized(alpha, beta))
    sampler.extend(torch.arange(n))
    return sampler


@pytest.mark.parametrize(("alpha", "ratio"), [(1.0, 9.0), (0.5, 3.0), (0.0, 1.0)])
def test_items_are_drawn_in_proportion_in_every_block(alpha: float, ratio: float) -> None:
    sampler = make(alpha=alpha)
    high = torch.tensor([0, 1023, 1024, 1500, 2047, 2048, 2999])
    sampler.update_priority(torch.arange(CAPACITY), torch.ones(CAPACITY))
    sampler.update_priority(high, torch.full((7,), 9.0))
    draws = [sampler.sample(Stored(CAPACITY), 20_000) for _ in range(10)]
    index = torch.cat([drawn for drawn, _ in draws])
    weight = torch.cat([info["priority_weight"] for _, info in draws])
    counts = torch.bincount(index, minlength=CAPACITY).double()
    low = torch.ones(CAPACITY, dtype=torch.bool)
    low[high] = False
    torch.testing.assert_close(counts[high] / counts[low].mean(), torch.full((7,), ratio).double(), rtol=0.25, atol=0)
    assert counts.min() > 0
    is_high = torch.isin(index, high)
    torch.testing.assert_close(weight[~is_high].unique(), torch.ones(1))
    torch.testing.assert_close(weight[is_high].unique(), torch.ones(1) / ratio)


def test_only_what_is_stored_is_drawn() -> None:
    index, info = make(n=1030).sample(Stored(1030), 20_000)
    assert set(range(1030)) == set(index.tolist())
    assert torch.equal(info["priority_weight"], torch.ones(20_000))


def test_new_items_get_the_highest_priority_so_far() -> None:
    sampler = make(n=1000)
    sampler.update_priority(torch.arange(1000), torch.full((1000,), 0.01))
    sampler.update_priority(torch.tensor([5]), torch.tensor([50.0]))
    sampler.update_priority(torch.tensor([5]), torch.tensor([0.01]))
    sampler.extend(torch.tensor([1000]))
    index, _ = sampler.sample(Stored(1001), 10_000)
    assert (index == 1000).float().mean().item() == pytest.approx(50 / 60, abs=0.02)


def test_no_error_is_still_drawn() -> None:
    sampler = make(n=3)
    sampler.update_priority(torch.arange(3), torch.zeros(3))
    assert set(sampler.sample(Stored(3), 100)[0].tolist()) == {0, 1, 2}


def test_state_is_restored() -> None:
    sampler, other = make(alpha=0.6, beta=0.4), make(n=7, alpha=0.6, beta=0.4)
    sampler.update_priority(torch.arange(CAPACITY), 10 * torch.rand(CAPACITY))
    other.load_state_dict(sampler.state_dict())
    sampler.extend(torch.tensor([4]))
    other.extend(torch.tensor([4]))
    drawn = []
    for each in (sampler, other):
        torch.manual_seed(1)
        drawn.append(each.sample(Stored(CAPACITY), 500))
    assert torch.equal(drawn[0][0], drawn[1][0])
    assert torch.equal(drawn[0][1]["priority_weight"], drawn[1][1]["priority_weight"])
