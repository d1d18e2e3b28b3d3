"""Whether a process is alive, asked now and then without waiting for its answer."""

from __future__ import annotations

from collections.abc import Callable

# Seconds between an answer and the next question.
ASK_EVERY = 5.0
# Seconds that a process gets to begin, where `timeout` is less: on a busy machine it takes minutes to import torch.
BEGIN_WITHIN = 300.0


class SignsOfLife:
    """Asks a process whether it is alive, and knows since when it has not answered.

    Args:
        ask: asks; what it returns says whether there is an answer.
        timeout: seconds that an answer may take, once there was one.
    """

    def __init__(self, ask: Callable[[], Callable[[], bool]], timeout: float) -> None:
        self._ask, self.timeout = ask, timeout
        self._is_answered: Callable[[], bool] | None = None
        self._since: float | None = None
        self._has_begun = False

    def missing(self, now: float) -> bool:
        """Whether the process must be taken for lost; called again and again while it is waited for.

        Args:
            now: the time in seconds.
        """
        if self._since is None:
            self._since = now
        if self._is_answered is None:
            if now - self._since >= ASK_EVERY or not self._has_begun:
                self._is_answered, self._since = self._ask(), now
            return False
        if self._is_answered():
            self._is_answered, self._since, self._has_begun = None, now, True
            return False
        return now - self._since > self.limit

    def forget(self) -> None:
        """Nobody waits for the process for now: what it has not answered counts no longer."""
        self._is_answered = self._since = None

    def answered(self) -> None:
        """It has answered what it was asked for, so it has begun."""
        self._has_begun = True

    @property
    def limit(self) -> float:
        """Seconds that an answer may take now."""
        return self.timeout if self._has_begun else max(self.timeout, BEGIN_WITHIN)
