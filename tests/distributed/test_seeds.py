"""Seeds of processes side by side."""

from __future__ import annotations

from ctde_kit.distributed import rank_seed


def test_rank_zero_has_the_plain_seed_and_no_two_processes_share_one() -> None:
    seeds = {(seed, rank): rank_seed(seed, rank) for seed in range(20) for rank in range(20)}
    assert all(seeds[seed, 0] == seed for seed in range(20))
    assert len({*seeds.values()}) == len(seeds)
    assert all(0 <= seed < 2**32 for seed in seeds.values())
    assert rank_seed(3, 0, 1) != rank_seed(3, 0, 2) != 3
