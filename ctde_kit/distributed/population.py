"""Several whole learners, each in a process of its own, that exchange critics and write checkpoints in step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from ctde_kit.distributed.meeting_room import Exchange, MeetingRoom, Saved, Scored
from ctde_kit.distributed.member import Ended, HostedMember, Meetings
from ctde_kit.distributed.processes import Answer, HostedObject, Processes
from ctde_kit.errors import CallbackError, NotFiniteError, UserError, WorkerError
from ctde_kit.files import JsonObject

# How long one member's answer is waited for before the others are asked, in seconds.
PATIENCE = 0.5
Train = Callable[[Meetings], JsonObject]


class Population:
    """Trains several members to the end, each in a process of its own.

    The members' runs are independent of each other but at their meetings: to exchange critics, and where each has
    written a checkpoint. There all wait for the slowest, so the numbers do not depend on how fast the processes are.

    Args:
        train: by rank, what trains a member; ``None`` for one that has ended. It must work in a program that has
            imported nothing yet.
        processes: where members are hosted.
        held: how many exchanges there were, where the population goes on.
        on_exchange: called after each exchange of critics, before the members go on.
        on_saved: called when all members have written a checkpoint, with its frames.
        on_wait: called about twice a second while members train; what it raises ends the population.

    >>> from functools import partial
    >>> from ctde_kit.distributed import LocalProcesses, Population, Scored
    >>> def train(rank, meetings):
    ...     theirs = meetings.exchange(Scored(6, 1, {"return": rank}, {"return": f"critics of {rank}"}))
    ...     return {"took": theirs.get("return")}
    >>> members = [partial(train, rank) for rank in range(3)]
    >>> [summary["took"] for summary in Population(members, LocalProcesses()).run().values()]
    ['critics of 2', 'critics of 2', None]
    """

    def __init__(
        self,
        train: Sequence[Train | None],
        processes: Processes,
        *,
        held: int = 0,
        on_exchange: Callable[[Exchange], None] = lambda exchange: None,
        on_saved: Callable[[int], None] = lambda frames: None,
        on_wait: Callable[[], None] = lambda: None,
    ) -> None:
        self.room, self.processes = MeetingRoom(len(train), held), processes
        self.on_exchange, self.on_saved, self.on_wait = on_exchange, on_saved, on_wait
        self._hosts: dict[int, HostedObject] = {}
        self._answers: dict[int, Answer] = {}
        for rank, run in enumerate(train):
            if run is None:
                self.room.leave_for_good(rank)
            else:
                name = f"member {rank} of {len(train)}"
                self._hosts[rank] = processes.start(partial(HostedMember, run), name)

    def run(self) -> dict[int, JsonObject]:
        """Train to the end; returns the summaries of the members by rank.

        Raises:
            ProcessLostError: where a member's process is gone. All others must be ended then, by closing the processes.
        """
        summaries: dict[int, JsonObject] = {}
        for rank in self._hosts:
            self._ask(rank, "begin")
        while self._answers:
            for rank, came in self._arrived():
                if isinstance(came, Ended):
                    summaries[rank] = came.summary
                    self.room.leave_for_good(rank)
                else:
                    self.room.enter(rank, came)
            if self.room.all_are_here():
                self._meet()
            self.on_wait()
        return dict(sorted(summaries.items()))

    def end(self) -> None:
        """End all members where they wait."""
        for host in self._hosts.values():
            host.end()

    def _arrived(self) -> list[tuple[int, Scored | Saved | Ended]]:
        """Who has come to a meeting, or to the end of its run, since the last call."""
        there = [rank for rank, answer in self._answers.items() if answer.is_there(PATIENCE / len(self._answers))]
        return [(rank, self._came(rank)) for rank in there]

    def _ask(self, rank: int, method: str, *arguments: Any) -> None:
        with _naming(rank):
            self._answers[rank] = self._hosts[rank].ask(method, *arguments)

    def _came(self, rank: int) -> Scored | Saved | Ended:
        with _naming(rank):
            return self._answers.pop(rank).get()

    def _meet(self) -> None:
        came = dict(sorted(self.room.present.items()))
        if self.room.waits_for_checkpoints():
            self.room.dismiss()
            self.on_saved(next(iter(came.values())).frames)
            self._go_on({rank: {} for rank in came})
            return
        exchange = self.room.exchange()
        self.on_exchange(exchange)
        scored = {rank: reason for rank, reason in came.items() if isinstance(reason, Scored)}
        best = {figure: rank for figure, rank in exchange.best.items() if figure in scored[rank].critics}
        shared = {figure: self.processes.share(scored[rank].critics[figure]) for figure, rank in best.items()}
        self._go_on({rank: {name: shared[name] for name in best if best[name] != rank} for rank in came})

    def _go_on(self, critics: dict[int, dict[str, Any]]) -> None:
        for rank, theirs in critics.items():
            self._ask(rank, "go_on", tuple(theirs), *theirs.values())


@contextlib.contextmanager
def _naming(rank: int) -> Iterator[None]:
    """Inside the block an error that is one line says which member has it."""
    try:
        yield
    except (UserError, NotFiniteError, WorkerError, CallbackError) as error:
        error.args = (f"member {rank}: {error}",)
        raise
