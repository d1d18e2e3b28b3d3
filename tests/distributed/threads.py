"""Learners in threads of one process, which add up through gloo as processes do; random streams are shared."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from copy import deepcopy
from typing import Any, TypeVar

import pytest
from torch import Tensor

from ctde_kit.distributed import AverageGradients, free_address
from ctde_kit.shards import sharing
from ctde_kit.training.random_state import random_state, restore_random_state, unchanged_random_state

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

    def check_alive(self, seconds: float) -> None:
        """It lives as long as this process does."""

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


class InTurn:
    """Learners in threads of which one computes at a time, each with a random stream of its own.

    Args:
        average: what this learner adds up with.
        turn: held by the learner that computes.
    """

    def __init__(self, average: AverageGradients, turn: threading.Lock) -> None:
        self.average, self.turn, self.count = average, turn, average.count

    def __call__(self, gradients: list[Tensor | None]) -> list[Tensor | None]:
        with others_turn(self.turn):
            return self.average(gradients)

    def sum(self, values: Tensor) -> Tensor:
        with others_turn(self.turn):
            return self.average.sum(values)

    def max(self, values: Tensor) -> Tensor:
        with others_turn(self.turn):
            return self.average.max(values)


@contextlib.contextmanager
def others_turn(turn: threading.Lock) -> Iterator[None]:
    """Inside the block other threads compute; afterwards random streams are as this thread left them."""
    state = random_state()
    turn.release()
    try:
        yield
    finally:
        turn.acquire()
        restore_random_state(state)


class TurnProcesses(ThreadProcesses):
    """Hosts objects in threads of which one computes at a time, each with random streams of its own.

    The thread that makes it has the turn until it waits for another one.

    Args:
        monkeypatch: lets others compute where learners wait for each other.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.turn = threading.Lock()
        self.turn.acquire()
        for method in ("__init__", "_reduced"):
            monkeypatch.setattr(AverageGradients, method, self._letting_others(getattr(AverageGradients, method)))

    def start(self, make: Callable[[], object], name: str) -> TurnObject:
        hosted = TurnObject(make, self.turn)
        self.hosted.append(hosted)
        return hosted

    def share(self, value: object) -> object:
        # Elsewhere it would not change with what it was made of, either.
        return deepcopy(value)

    def _letting_others(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def waiting(*arguments: Any, **options: Any) -> Any:
            with others_turn(self.turn):
                return method(*arguments, **options)

        return waiting


class TurnObject(ThreadObject):
    """An object that answers in its thread when it is its turn."""

    def __init__(self, make: Callable[[], object], turn: threading.Lock) -> None:
        self.turn, self._streams = turn, random_state()
        super().__init__(lambda: self._apart(make))

    def ask(self, method: str, *arguments: object) -> TurnAnswer:
        def call() -> object:
            made = self._made.result()
            return self._apart(lambda: getattr(made, method)(*arguments))

        return TurnAnswer(self._thread.submit(call), self.turn)

    def _apart(self, call: Callable[[], object]) -> object:
        with self.turn, unchanged_random_state():
            restore_random_state(self._streams)
            try:
                return call()
            finally:
                self._streams = random_state()


class TurnAnswer(ThreadAnswer):
    """What a call will return, which lets others compute while it is waited for."""

    def __init__(self, future: Future[Any], turn: threading.Lock) -> None:
        super().__init__(future)
        self.turn = turn

    def is_there(self, seconds: float) -> bool:
        with others_turn(self.turn):
            return super().is_there(seconds)

    def get(self) -> Any:
        with others_turn(self.turn):
            return super().get()
