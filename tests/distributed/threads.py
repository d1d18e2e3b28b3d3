"""Learners in threads of one process, which add up through gloo as processes do; random streams are shared."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

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


class ThreadProcesses:
    """Hosts each object in a thread of its own."""

    def __init__(self) -> None:
        self.hosted: list[ThreadObject] = []

    def start(self, make: Callable[[], object], name: str) -> ThreadObject:
        self.hosted.append(ThreadObject(make))
        return self.hosted[-1]

    def share(self, value: object) -> object:
        return value

    def close(self) -> None:
        for hosted in self.hosted:
            hosted.end()


class ThreadObject:
    """An object that answers in its thread, one call after the other."""

    def __init__(self, make: Callable[[], object]) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._made = self._thread.submit(make)

    def ask(self, method: str, *arguments: object) -> ThreadAnswer:
        return ThreadAnswer(self._thread.submit(lambda: getattr(self._made.result(), method)(*arguments)))

    def end(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


class ThreadAnswer:
    """What a call will return."""

    def __init__(self, future: Future[Any]) -> None:
        self._future = future

    def is_there(self, seconds: float) -> bool:
        return not wait([self._future], timeout=seconds).not_done

    def get(self) -> Any:
        return self._future.result(60)
