"""Learners in threads of one process, which add up through gloo as processes do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from ctde_kit.distributed import AverageGradients, free_address
from ctde_kit.shards import sharing

Result = TypeVar("Result")


def side_by_side(count: int, work: Callable[[int, AverageGradients], Result]) -> list[Result]:
    """What ``work(rank, average)`` returns in each of ``count`` learners."""
    address, results, errors = free_address(), dict[int, Result](), list[BaseException]()

    def learner(rank: int) -> None:
        try:
            average = AverageGradients(address, rank=rank, count=count, timeout=30)
            with sharing(average):
                results[rank] = work(rank, average)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=learner, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]
    return [results[rank] for rank in range(count)]
