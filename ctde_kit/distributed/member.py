"""One member of a population, as its own process sees it: a run that stops at meetings until the others have come."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ctde_kit.distributed.meeting_room import Saved, Scored
from ctde_kit.files import JsonObject


@dataclass(frozen=True)
class Ended:
    """A member's run has ended.

    Args:
        summary: of the run.
    """

    summary: JsonObject


@dataclass(frozen=True)
class _Raised:
    error: BaseException


class DismissedError(BaseException):
    """Ends the thread of a member that is not needed any more; nothing is written."""


class Meetings:
    """What a member's run calls to meet the others; a call returns when the meeting is over.

    >>> from ctde_kit.distributed import Meetings
    >>> meetings = Meetings()
    >>> meetings.answers.put({})  # the others have come, and this member's critics are the best
    >>> meetings.saved(frames=6000)
    >>> meetings.came.get()
    Saved(frames=6000)
    """

    def __init__(self) -> None:
        self.came: queue.SimpleQueue[Scored | Saved | Ended | _Raised] = queue.SimpleQueue()
        self.answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def exchange(self, scored: Scored) -> dict[str, Any]:
        """Exchange critics: by the name of each figure those of the best member, where that is another one."""
        return self._meet(scored)

    def saved(self, frames: int) -> None:
        """Wait until all members have written their checkpoints."""
        self._meet(Saved(frames))

    def _meet(self, reason: Scored | Saved) -> dict[str, Any]:
        self.came.put(reason)
        answer = self.answers.get()
        if answer is None:
            raise DismissedError
        return answer


class HostedMember:
    """A run in a thread of its own, which goes on from meeting to meeting.

    Args:
        train: trains to the end and returns the run's summary; it calls the meetings that it is given.

    >>> from ctde_kit.distributed.meeting_room import Saved
    >>> from ctde_kit.distributed.member import HostedMember
    >>> def train(meetings):
    ...     meetings.saved(frames=600)
    ...     return {"frames": 600}
    >>> member = HostedMember(train)
    >>> member.begin(), member.go_on(())
    (Saved(frames=600), Ended(summary={'frames': 600}))
    """

    def __init__(self, train: Callable[[Meetings], JsonObject]) -> None:
        self._train, self._meetings = train, Meetings()
        # A daemon: what waits for a meeting that will not be held must not keep the process.
        self._thread = threading.Thread(target=self._run, name="member", daemon=True)

    def begin(self) -> Scored | Saved | Ended:
        """Train to the first meeting, or to the end.

        Raises:
            Exception: whatever the run raises.
        """
        self._thread.start()
        return self._next()

    def go_on(self, figures: tuple[str, ...], *critics: Any) -> Scored | Saved | Ended:
        """Train to the next meeting, or to the end.

        Args:
            figures: for which there are critics to take over.
            critics: for each of them.

        Raises:
            Exception: whatever the run raises.
        """
        self._meetings.answers.put(dict(zip(figures, critics, strict=True)))
        return self._next()

    def close(self) -> None:
        """End the run where it waits for a meeting."""
        if self._thread.is_alive():
            self._meetings.answers.put(None)
            self._thread.join()

    def _next(self) -> Scored | Saved | Ended:
        came = self._meetings.came.get()
        if isinstance(came, _Raised):
            raise came.error
        return came

    def _run(self) -> None:
        try:
            self._meetings.came.put(Ended(self._train(self._meetings)))
        except DismissedError:
            pass
        except BaseException as error:
            self._meetings.came.put(_Raised(error))
