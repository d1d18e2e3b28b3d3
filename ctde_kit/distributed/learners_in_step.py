"""Learners in processes of their own that take every gradient step together with the one in this process."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import torch
from tensordict import TensorDictBase
from torchrl.envs import EnvBase

from ctde_kit.collectors import RolloutCollector
from ctde_kit.distributed.gradients import AverageGradients, average_gradients, free_address
from ctde_kit.distributed.hosted_learner import HostedLearner
from ctde_kit.distributed.processes import Answer, HostedObject, Processes, ProcessLostError
from ctde_kit.distributed.shard_rollouts import ShardRollouts
from ctde_kit.errors import LearnerLostError, UserError
from ctde_kit.protocols import ExperienceCollector, StateDict
from ctde_kit.training import Parts

# Seconds after a step has failed: another learner has failed, too, by then, and a process that lives has said so.
ANSWER_WITHIN = 1.0
SIGN_WITHIN = 5.0


class LearnersInStep(ABC):
    """The base of collectors whose run learns together with learners in other processes.

    It is the collector of rank 0, in this process, and works in ``iterate``, which lets it ``join`` the other parts:
    gradient steps are eager then. Where a learner is lost none can go on: the run does so from its last checkpoint.

    Args:
        own: of rank 0, without an end.
        processes: where the others are hosted; a function, called with the first batch.
        learners: how many, this process among them.
        total_frames: stop once this many are collected; -1: never.
        threads: of the CPU that torch computes with in each learner, this one too while they learn; ``None`` for the
            defaults.
        timeout: seconds that a learner waits for the others in a step; collecting a batch takes all of them about as
            long.
    """

    def __init__(
        self,
        own: ExperienceCollector,
        *,
        processes: Callable[[], Processes],
        learners: int,
        total_frames: int,
        threads: int | None,
        timeout: float,
    ) -> None:
        if learners < 2:
            raise UserError(f"{type(self).__name__}: learners={learners}: expected at least 2")
        self.own, self.learners, self.total_frames = own, learners, total_frames
        self.threads, self.timeout = threads, timeout
        self._open, self._processes, self._is_closed = processes, None, False
        self._hosts: list[HostedObject] = []
        self._average: AverageGradients | None = None
        self._answers: list[Answer] = []
        self._own_threads: int | None = None

    @abstractmethod
    def _host(self, rank: int) -> Callable[[], HostedLearner]:
        """What makes the learner of a rank, in its process."""

    @abstractmethod
    def _start(self, parts: Parts) -> list[Answer]:
        """Give the others what they start from."""

    @abstractmethod
    def __iter__(self) -> Iterator[TensorDictBase]:
        """The batches of rank 0."""

    @abstractmethod
    def learning(self) -> contextlib.AbstractContextManager[None]:
        """A block inside which statistics are those of all learners."""

    @abstractmethod
    def state_dict(self) -> StateDict:
        """Of what rank 0's other parts do not hold."""

    @abstractmethod
    def load_state_dict(self, state_dict: StateDict) -> None:
        """Restore what ``state_dict`` returned."""

    @property
    def env(self) -> EnvBase:
        """Of rank 0."""
        return self.own.env

    @property
    def frames(self) -> int:
        """Env transitions that were collected."""
        return self.own.frames

    @property
    def compile(self) -> bool:
        """Whether rank 0's rollouts run as compiled graphs."""
        own = self.own.collector if isinstance(self.own, ShardRollouts) else self.own
        return isinstance(own, RolloutCollector) and own.compile

    def join(self, parts: Parts) -> None:
        """Start the other learners with the weights of ``parts``, or as a checkpoint left them."""
        if self._average is not None:
            return
        if self.threads is not None:
            # They share the cores, and one that has more threads rounds in another order.
            self._own_threads = torch.get_num_threads()
            torch.set_num_threads(self.threads)
        self._processes = self._open()
        try:
            self._meet(parts)
        except BaseException:
            self._end_others()
            raise

    def _meet(self, parts: Parts) -> None:
        assert self._processes is not None
        for rank in range(1, self.learners):
            self._hosts.append(self._processes.start(self._host(rank), f"learner {rank + 1} of {self.learners}"))
        for answer in self._start(parts):
            wait_for(answer)
        address = free_address()
        self._answers = self._ask("begin", address, self.timeout)
        average = AverageGradients(
            address, rank=0, count=self.learners, timeout=self.timeout, explain=self._raise_the_cause
        )
        average_gradients(parts, average)
        self._wait_for_all()
        self._average = average

    def _ask(self, method: str, *arguments: Any) -> list[Answer]:
        return [host.ask(method, *arguments) for host in self._hosts]

    def _met(self) -> AverageGradients:
        """What the learners add up with."""
        if self._average is None:
            raise UserError(
                f"{type(self).__name__}: they have not met; train in iterate(parts), which calls join(parts)"
            )
        return self._average

    def _wait_for_all(self) -> None:
        for answer in self._answers:
            wait_for(answer)
        self._answers = []

    def _raise_the_cause(self) -> None:
        """Raise why a step failed: the error of another learner, or that one gives no sign of life."""
        until = time.monotonic() + ANSWER_WITHIN
        with _losses():
            for answer in self._answers:
                if answer.is_there(max(0.0, until - time.monotonic())):
                    # One that waited for another learner in vain, as this one did, does not know the cause.
                    with contextlib.suppress(LearnerLostError):
                        answer.get()
            for host in self._hosts:
                host.check_alive(SIGN_WITHIN)

    def update_policy_weights_(self) -> None:
        """Act with the current weights from the next batch on."""
        self.own.update_policy_weights_()

    def shutdown(self) -> None:
        """End the other learners' processes, and close the env."""
        self._end_others()
        if not self._is_closed:
            self._is_closed = True
            self.own.shutdown()

    def _end_others(self) -> None:
        if self._processes is not None:
            self._processes.close()
        self._processes, self._hosts, self._average, self._answers = None, [], None, []
        if self._own_threads is not None:
            torch.set_num_threads(self._own_threads)
            self._own_threads = None


def wait_for(answer: Answer) -> Any:
    """What a learner answers; one that is lost is a ``LearnerLostError``."""
    with _losses():
        return answer.get()


@contextlib.contextmanager
def _losses() -> Iterator[None]:
    """Inside the block a process that is lost is a learner that is."""
    try:
        yield
    except ProcessLostError as loss:
        raise LearnerLostError(str(loss)) from loss
