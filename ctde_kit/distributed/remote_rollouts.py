"""Collectors in processes of their own, as one collector."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from tensordict import TensorDictBase
from torch import nn
from torchrl.envs import EnvBase

from ctde_kit.collectors import RolloutCollector
from ctde_kit.data.tensordict_state import from_state, to_state
from ctde_kit.distributed.hosted_collector import Collected, CollectorState, HostedCollector
from ctde_kit.distributed.messages import Message, pack, to_arrays, unpack
from ctde_kit.distributed.processes import Answer, HostedObject, Processes, ProcessLostError
from ctde_kit.distributed.seeds import rank_seed
from ctde_kit.errors import UserError, WorkerError
from ctde_kit.protocols import StateDict
from ctde_kit.training.random_state import random_state, restore_random_state

logger = logging.getLogger("ctde_kit")


@dataclass
class _Asked:
    """A batch that is asked for: with which weights and random states, and by rank the answer or the rows it gave."""

    weights: object
    random: list[StateDict | None]
    answers: list[Answer | Message]


class RemoteRollouts:
    """Collectors in processes of their own, each with its envs, as one collector of batches ``[n_envs, T]``.

    The rows of a batch are those of rank 0, then those of rank 1, and so on: the same layout gives the same run. Rank 0
    draws its random numbers from this process's generators, which go there with the weights and come back with the
    batch, so that one collector alone equals a ``RolloutCollector`` here, bit for bit.

    With ``delay=k`` batch ``t`` is always collected with the weights from before batch ``t - k`` was learned from,
    while this process learns from the batches before it; rank 0 then has a random stream of its own. Batches in flight
    are part of ``state_dict``, so such a run is as deterministic as one without delay, and resumes bit for bit.

    A process that is lost is started again from the state after its last batch, with one warning, and the run goes on
    as if nothing had happened. Where an env's state cannot be captured, its episodes begin anew.

    Args:
        make: builds the collector of a rank. Each has ``frames_per_batch / collectors`` frames per batch, and its own
            seed (``rank_seed``). It and what it returns must work in a program that has imported nothing yet.
        policy: the one that is trained; its weights go to all collectors before each batch.
        env: an env like theirs, for specs; it is not stepped.
        processes: where collectors are hosted, such as ``RayProcesses``; a function, called with the first batch.
        collectors: how many.
        frames_per_batch: frames (env transitions) of all collectors together per batch.
        total_frames: stop once this many frames are collected; -1: never.
        delay: how many batches are collected ahead, and so how many iterations a batch's weights are behind.
        seed: of the run.
        threads: of the CPU that torch computes with in each collector; ``None`` for its default.
        restarts: how often lost processes are started again, all together.

    Raises:
        UserError: for numbers out of range.
        ctde_kit.errors.WorkerError: while it collects, for a process that is lost once more than ``restarts`` allows.

    >>> from functools import partial
    >>> import ctde_kit as ck
    >>> from ctde_kit.distributed import LocalProcesses, RemoteRollouts, rank_seed
    >>> def build(rank):
    ...     env = ck.VmasEnv("navigation", num_envs=2, max_steps=5, seed=rank_seed(0, rank))
    ...     policy = ck.modules.RandomActor(ck.TeamSpec.from_env(env)["agents"])
    ...     return ck.RolloutCollector(env, policy, frames_per_batch=6)
    >>> local = build(0)
    >>> rollouts = RemoteRollouts(
    ...     build, local.policy, local.env, processes=LocalProcesses, collectors=3, frames_per_batch=18,
    ...     total_frames=36,
    ... )
    >>> [batch.shape for batch in rollouts], rollouts.frames
    ([torch.Size([6, 3]), torch.Size([6, 3])], 36)
    """

    def __init__(
        self,
        make: Callable[[int], RolloutCollector],
        policy: nn.Module,
        env: EnvBase,
        *,
        processes: Callable[[], Processes],
        collectors: int,
        frames_per_batch: int,
        total_frames: int = -1,
        delay: int = 0,
        seed: int = 0,
        threads: int | None = None,
        restarts: int = 3,
    ) -> None:
        if collectors < 1 or delay < 0 or restarts < 0:
            raise UserError(
                f"RemoteRollouts: collectors={collectors}, delay={delay}, restarts={restarts}: expected at least 1, 0 "
                "and 0"
            )
        self.make, self.policy, self.env = make, policy, env
        self.collectors, self.delay, self.seed = collectors, delay, seed
        self.frames_per_batch, self.total_frames, self.frames = frames_per_batch, total_frames, 0
        self.threads, self.restarts, self.restarted = threads, restarts, 0
        self.compile = False
        self._open, self._processes, self._is_closed = processes, None, False
        self._hosts: list[HostedObject] = []
        self._asked: deque[_Asked] = deque()
        # After the last batch that a collector answered with; where it is None it begins.
        self._after: list[CollectorState | None] = [None] * collectors

    def __iter__(self) -> Iterator[TensorDictBase]:
        while self.total_frames == -1 or self.frames < self.total_frames:
            self._start()
            while len(self._asked) <= self.delay and self._more():
                self._ask()
            messages = [self._rows(self._asked[0], rank) for rank in range(self.collectors)]
            self._asked.popleft()
            first = self._after[0]
            if not self.delay and first is not None:
                restore_random_state(first.random)
            batch = unpack(messages, self.env.device)
            self.frames += batch.numel()
            yield batch

    def _more(self) -> bool:
        """Whether a further batch is to be asked for."""
        return self.total_frames == -1 or self.frames + len(self._asked) * self.frames_per_batch < self.total_frames

    def _start(self) -> None:
        if self._processes is None:
            self._processes = self._open()
        for rank in range(len(self._hosts), self.collectors):
            self._hosts.append(self._host(self._processes, rank))

    def _host(self, processes: Processes, rank: int) -> HostedObject:
        # Rank 0 would draw the same numbers as this process, whose seed it has.
        own = rank_seed(self.seed, self.collectors) if rank == 0 and self.delay else None
        name = f"collector {rank + 1} of {self.collectors}"
        host = processes.start(partial(HostedCollector, partial(self.make, rank), self.threads, own), name)
        after = self._after[rank]
        if after is not None:
            host.ask("restore", after)
        return host

    def _ask(self) -> None:
        assert self._processes is not None
        weights = self._processes.share(to_arrays(self.policy.state_dict()))
        random = [random_state() if rank == 0 and not self.delay else None for rank in range(self.collectors)]
        answers = [host.ask("collect", weights, own) for host, own in zip(self._hosts, random, strict=True)]
        self._asked.append(_Asked(weights, random, [*answers]))

    def _rows(self, asked: _Asked, rank: int) -> Message:
        """The rows of one rank, waited for."""
        while True:
            answer = asked.answers[rank]
            if isinstance(answer, Message):
                return answer
            try:
                collected: Collected = answer.get()
            except ProcessLostError as loss:
                self._restart(rank, loss)
            else:
                asked.answers[rank], self._after[rank] = collected.batch, collected.after
                self.compile = collected.compiled

    def _restart(self, rank: int, loss: ProcessLostError) -> None:
        """Host a lost collector again, and ask for what it had not answered."""
        if self.restarted == self.restarts:
            raise WorkerError(f"{loss}; restarts={self.restarts} allows no further one: see what ends it") from loss
        self.restarted += 1
        after = self._after[rank]
        begins_anew = after is not None and after.collector is None
        where = "begins new episodes" if begins_anew else "goes on from its last state"
        logger.warning("%s: it %s (restart %d of %d)", loss, where, self.restarted, self.restarts)
        self._hosts[rank].end()
        assert self._processes is not None
        self._hosts[rank] = self._host(self._processes, rank)
        if begins_anew:
            self._hosts[rank].ask("begin_anew", rank_seed(self.seed, rank, self.restarted))
        for asked in self._asked:
            if not isinstance(asked.answers[rank], Message):
                asked.answers[rank] = self._hosts[rank].ask("collect", asked.weights, asked.random[rank])

    def update_policy_weights_(self, *_: object, **__: object) -> None:
        """Does nothing: weights go to the collectors with each batch that is asked for."""

    def shutdown(self) -> None:
        """End the processes, and close the env."""
        if self._processes is not None:
            self._processes.close()
        self._processes, self._hosts = None, []
        if not self._is_closed:
            self._is_closed = True
            self.env.close()

    def state_dict(self) -> StateDict:
        """Frames, what each collector goes on from, and the batches in flight, for which it waits.

        It ends all episodes of envs whose state cannot be captured.
        """
        in_flight = [
            [to_state(unpack([self._rows(asked, rank)])) for rank in range(self.collectors)] for asked in self._asked
        ]
        for rank in range(len(self._hosts)):
            self._after[rank] = self._state_of(rank)
        after = [None if one is None else {"collector": one.collector, "random": one.random} for one in self._after]
        return {"frames": self.frames, "collectors": after, "in_flight": in_flight}

    def _state_of(self, rank: int) -> CollectorState:
        while True:
            try:
                return self._hosts[rank].ask("state").get()
            except ProcessLostError as loss:
                self._restart(rank, loss)

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Restore what ``state_dict`` returned, of as many collectors."""
        if len(state_dict["collectors"]) != self.collectors:
            raise UserError(
                f"RemoteRollouts: the state is one of {len(state_dict['collectors'])} collectors, found "
                f"collectors={self.collectors}; give as many"
            )
        self.frames = state_dict["frames"]
        self._after = [None if one is None else CollectorState(**one) for one in state_dict["collectors"]]
        self._asked = deque(
            _Asked(None, [None] * self.collectors, [_message(rows) for rows in batch])
            for batch in state_dict["in_flight"]
        )
        for host, after in zip(self._hosts, self._after, strict=False):
            if after is not None:
                host.ask("restore", after)


def _message(state: StateDict) -> Message:
    """Rows of a batch as they were before a checkpoint held them."""
    rows = from_state(state)
    assert rows is not None
    return pack(rows)
