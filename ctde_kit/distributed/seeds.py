"""Seeds of processes that work side by side."""

from __future__ import annotations

import numpy as np


def rank_seed(seed: int, *rank: int) -> int:
    """The seed of one of several processes: rank 0 has the plain one, so that one process alone is a local run.

    Neighboring seeds give unrelated streams: ranks are not added to the seed, which would make rank 1 of seed 0 and
    rank 0 of seed 1 the same process.

    Args:
        seed: of the run.
        rank: of the process, and further numbers where one process begins several streams.

    >>> from ctde_kit.distributed import rank_seed
    >>> rank_seed(7, 0), rank_seed(7, 1) == rank_seed(8, 0), rank_seed(7, 1) == rank_seed(7, 2)
    (7, False, False)
    """
    if not any(rank):
        return seed
    return int(np.random.SeedSequence((seed, *rank)).generate_state(1)[0])
