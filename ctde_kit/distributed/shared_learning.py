"""Several learners that share every gradient step, as the collector of the first of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial

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
from ctde_kit.shards import sharing
from ctde_kit.training import Parts, stateful_parts


class Learners:
    """The collector of a run that learns together with learners in processes of their own (data-parallel).

    Each learner has networks, envs and a buffer of its own. They start with the same weights, collect and draw
    minibatches each for itself, and add up the gradients of every step (``AverageGradients``), so their networks stay
    the same, and an update learns from ``learners`` minibatches. Masked means, normalized advantages, ``ValueNorm`` and
    other running statistics are those of all learners' batches together. What each collects stays with it: a batch that
    this yields is rank 0's own, and ``frames`` counts those of all.

    It is the collector of rank 0, in this process, and works in ``iterate``, which lets it ``join`` the other parts:
    gradient steps are eager then. Where a learner is lost none can go on: the run does so from its last checkpoint.

    Args:
        collector: of rank 0, without an end.
        make: builds the parts of a rank, whose collector has no end; it must work in a program that has imported
            nothing yet.
        processes: where the others are hosted; a function, called with the first batch.
        learners: how many, this process among them.
        total_frames: stop once all together have collected this many; -1: never.
        threads: of the CPU that torch computes with in each learner, this one too while they learn; ``None`` for the
            defaults.
        timeout: seconds that a learner waits for the others in a step; collecting a batch takes all of them about as
            long.

    Raises:
        UserError: for fewer than two learners.
        LearnerLostError: while it learns, for a learner that is gone.

    >>> from functools import partial
    >>> from ctde_kit.distributed import Learners, RayProcesses
    >>> from ctde_kit.recipes import MatrixTask, QMIXConfig
    >>> def build(rank):
    ...     return QMIXConfig(task=MatrixTask(n_envs=2), seed=rank).build()
    >>> processes = partial(RayProcesses, "local")
    >>> learners = Learners(build(0).collector, build, processes=processes, learners=2)  # iterate lets them meet
    >>> learners.frames
    0
    """

    def __init__(
        self,
        collector: ExperienceCollector,
        make: Callable[[int], Parts],
        *,
        processes: Callable[[], Processes],
        learners: int,
        total_frames: int = -1,
        threads: int | None = None,
        timeout: float = 60.0,
    ) -> None:
        if learners < 2:
            raise UserError(f"Learners: learners={learners}: expected at least 2")
        self.own, self.make = ShardRollouts(collector, learners), make
        self.learners, self.total_frames = learners, total_frames
        self.threads, self.timeout = threads, timeout
        self._open, self._processes, self._is_closed = processes, None, False
        self._hosts: list[HostedObject] = []
        self._average: AverageGradients | None = None
        self._answers: list[Answer] = []
        self._own_threads: int | None = None
        # Of the other ranks, once a checkpoint was read.
        self._states: list[StateDict] = []

    @property
    def env(self) -> EnvBase:
        """Of rank 0."""
        return self.own.env

    @property
    def frames(self) -> int:
        """Env transitions that all learners have collected."""
        return self.own.frames

    @property
    def compile(self) -> bool:
        """Whether rank 0's rollouts run as compiled graphs."""
        return isinstance(self.own.collector, RolloutCollector) and self.own.collector.compile

    def join(self, parts: Parts) -> None:
        """Start the other learners with the weights of ``parts``, or as a checkpoint left them."""
        if self._hosts:
            return
        if self.threads is not None:
            # They share the cores, and one that has more threads rounds in another order.
            self._own_threads = torch.get_num_threads()
            torch.set_num_threads(self.threads)
        # What it collected, and what it carries from batch to batch, is each learner's own.
        shared = {name: part for name, part in stateful_parts(parts).items() if name not in ("collector", "buffer")}
        first = {name: part.state_dict() for name, part in shared.items()}
        self._processes = self._open()
        address = free_address()
        for rank in range(1, self.learners):
            make = partial(HostedLearner, partial(self.make, rank), rank, self.learners, self.threads)
            self._hosts.append(self._processes.start(make, f"learner {rank + 1} of {self.learners}"))
        states = self._states or [None] * len(self._hosts)
        built = [
            host.ask("take", first) if state is None else host.ask("restore", state)
            for host, state in zip(self._hosts, states, strict=True)
        ]
        for answer in built:
            _wait(answer)
        self._answers = [host.ask("begin", address, self.timeout) for host in self._hosts]
        self._average = AverageGradients(
            address, rank=0, count=self.learners, timeout=self.timeout, explain=self._raise_what_others_raised
        )
        average_gradients(parts, self._average)
        self._wait_for_all()

    def __iter__(self) -> Iterator[TensorDictBase]:
        if self._average is None:
            raise UserError("Learners: they have not met; train in iterate(parts), which calls join(parts)")
        batches = iter(self.own)
        while self.total_frames == -1 or self.frames < self.total_frames:
            self._answers = [host.ask("advance") for host in self._hosts]
            yield next(batches)
            self._wait_for_all()

    def learning(self) -> AbstractContextManager[None]:
        """A block inside which statistics are those of all learners."""
        assert self._average is not None
        return sharing(self._average)

    def _wait_for_all(self) -> None:
        for answer in self._answers:
            _wait(answer)
        self._answers = []

    def _raise_what_others_raised(self) -> None:
        """Raise the error of a learner that has answered with one: it is why the others cannot go on."""
        for answer in self._answers:
            if answer.is_there(1.0):
                _wait(answer)

    def update_policy_weights_(self, *_: object, **__: object) -> None:
        """Does nothing: each learner's collector acts with its own networks."""

    def shutdown(self) -> None:
        """End the other learners' processes, and close the env."""
        if self._processes is not None:
            self._processes.close()
        self._processes, self._hosts, self._average, self._answers = None, [], None, []
        if self._own_threads is not None:
            torch.set_num_threads(self._own_threads)
            self._own_threads = None
        if not self._is_closed:
            self._is_closed = True
            self.own.shutdown()

    def state_dict(self) -> StateDict:
        """Of rank 0's collector, and of all parts of the other learners."""
        if self._hosts:
            self._states = [_wait(answer) for answer in [host.ask("state") for host in self._hosts]]
        return {"collector": self.own.state_dict(), "learners": self._states}

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Restore what ``state_dict`` returned, of as many learners."""
        found = len(state_dict["learners"])
        if found and found != self.learners - 1:
            raise UserError(f"Learners: the state is one of {found + 1} learners, found learners={self.learners}")
        self.own.load_state_dict(state_dict["collector"])
        self._states = state_dict["learners"]
        for host, state in zip(self._hosts, self._states, strict=False):
            host.ask("restore", state)


def _wait(answer: Answer) -> StateDict:
    try:
        return answer.get()
    except ProcessLostError as loss:
        raise LearnerLostError(str(loss)) from loss
