"""When a process is taken for lost: never while it starts on a busy machine, and in time afterwards."""

from __future__ import annotations

from ctde_kit.distributed.signs_of_life import ASK_EVERY, BEGIN_WITHIN, SignsOfLife


class Clock:
    """A process that answers or not, asked every half second."""

    def __init__(self, timeout: float) -> None:
        self.answers, self.now, self.asked = False, 1000.0, 0
        self.signs = SignsOfLife(self.ask, timeout)

    def ask(self):
        self.asked += 1
        return lambda: self.answers

    def seconds_until_missing(self, most: float) -> float | None:
        began = self.now
        while self.now - began < most:
            if self.signs.missing(self.now):
                return self.now - began
            self.now += 0.5
        return None


def test_a_process_that_starts_has_minutes() -> None:
    clock = Clock(timeout=10)
    assert clock.seconds_until_missing(BEGIN_WITHIN) is None
    assert clock.seconds_until_missing(10) is not None


def test_one_that_has_answered_is_lost_after_the_timeout() -> None:
    clock = Clock(timeout=10)
    clock.answers = True
    assert clock.seconds_until_missing(100) is None
    assert clock.asked == 100 // (ASK_EVERY + 0.5) + 1
    clock.answers = False
    assert 10 < clock.seconds_until_missing(100) <= 10 + ASK_EVERY + 1.5


def test_one_that_has_answered_a_call_has_begun() -> None:
    clock = Clock(timeout=10)
    clock.signs.answered()
    assert 10 < clock.seconds_until_missing(BEGIN_WITHIN) <= 10 + ASK_EVERY + 1.5


def test_time_in_which_nobody_waits_does_not_count() -> None:
    clock = Clock(timeout=10)
    clock.answers = True
    clock.seconds_until_missing(20)
    clock.answers = False
    clock.seconds_until_missing(ASK_EVERY + 1)
    clock.signs.forget()
    clock.now += 1000
    clock.answers = True
    assert clock.seconds_until_missing(100) is None


def test_a_long_timeout_holds_at_the_start_too() -> None:
    clock = Clock(timeout=2 * BEGIN_WITHIN)
    assert clock.seconds_until_missing(2 * BEGIN_WITHIN) is None
