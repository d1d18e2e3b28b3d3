"""Several learners that share every gradient step, as the collector of the first of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial

from tensordict import TensorDictBase

from ctde_kit.distributed.hosted_learner import HostedLearner
from ctde_kit.distributed.learners_in_step import LearnersInStep, wait_for
from ctde_kit.distributed.processes import Answer, Processes
from ctde_kit.distributed.shard_rollouts import ShardRollouts
from ctde_kit.errors import UserError
from ctde_kit.protocols import ExperienceCollector, StateDict
from ctde_kit.shards import sharing
from ctde_kit.training import Parts, stateful_parts


class Learners(LearnersInStep):
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
        make: builds the parts of a rank, whose collector has no end and collects as much as that of rank 0; it must
            work in a program that has imported nothing yet.
        processes: where the others are hosted; a function, called with the first batch.
        learners: how many, this process among them.
        total_frames: stop once all together have collected this many; -1: never.
        threads: of the CPU that torch computes with in each learner, this one too while they learn; ``None`` for the
            defaults.
        timeout: seconds that a learner waits for the others in a step; collecting a batch takes all of them about as
            long.

    Raises:
        UserError: for fewer than two learners; while it learns, where one collects more frames than another.
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

    own: ShardRollouts

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
        super().__init__(
            ShardRollouts(collector, learners),
            processes=processes,
            learners=learners,
            total_frames=total_frames,
            threads=threads,
            timeout=timeout,
        )
        self.make = make
        # Of the other ranks, once a checkpoint was read.
        self._states: list[StateDict] = []

    def _host(self, rank: int) -> Callable[[], HostedLearner]:
        return partial(HostedLearner, partial(self.make, rank), rank, self.learners, self.threads)

    def _start(self, parts: Parts) -> list[Answer]:
        # What it collected, and what it carries from batch to batch, is each learner's own.
        shared = {name: part for name, part in stateful_parts(parts).items() if name not in ("collector", "buffer")}
        first = {name: part.state_dict() for name, part in shared.items()}
        states = self._states or [None] * len(self._hosts)
        return [
            host.ask("take", first) if state is None else host.ask("restore", state)
            for host, state in zip(self._hosts, states, strict=True)
        ]

    def __iter__(self) -> Iterator[TensorDictBase]:
        _ = self._met()
        batches = iter(self.own)
        while self.total_frames == -1 or self.frames < self.total_frames:
            self._answers = self._ask("advance")
            with self.learning():  # they compare how many frames each has
                batch = next(batches)
            yield batch
            self._wait_for_all()

    def learning(self) -> AbstractContextManager[None]:
        """A block inside which statistics are those of all learners."""
        return sharing(self._met())

    def state_dict(self) -> StateDict:
        """Of rank 0's collector, and of all parts of the other learners."""
        if self._hosts:
            self._states = [wait_for(answer) for answer in self._ask("state")]
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
