"""Learners that share the agents of every batch, as the collector of the first of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from tensordict import TensorDictBase
from torchrl.envs import EnvBase

from ctde_kit.collectors import RolloutCollector
from ctde_kit.distributed.dealt_agents import agents_that_learn, deal
from ctde_kit.distributed.gradients import AverageGradients
from ctde_kit.distributed.hosted_learner import HostedLearner
from ctde_kit.distributed.learners_in_step import LearnersInStep, wait_for
from ctde_kit.distributed.messages import Message, pack, unpack
from ctde_kit.distributed.processes import Answer, Processes
from ctde_kit.distributed.shard_rollouts import ShardRollouts
from ctde_kit.errors import UserError, check_choice
from ctde_kit.protocols import ExperienceCollector, StateDict
from ctde_kit.shards import sharing
from ctde_kit.training import Parts, random_state, restore_random_state, stateful_parts

Collect = Literal["each", "first"]


class AgentLearners(LearnersInStep):
    """The collector of a run whose agents are learned by several learners, each in a process of its own.

    It is the worker per agent of Distributed MADDPG (Zhou and Chen, "Distributed Multi-Agent Reinforcement Learning").
    All learners have the same networks, replay and random numbers, and draw the same minibatches. Each computes the
    losses and gradients of some agents, whose critics it alone runs; ``AverageGradients`` adds them up, and all take
    the same step. So a run has the numbers of one process but for rounding, and so do its checkpoints, which any number
    of learners goes on from.

    It is the collector of rank 0, in this process, and works in ``iterate``, which lets it ``join`` the other parts:
    gradient steps are eager then. Where a learner is lost none can go on: the run does so from its last checkpoint.

    Args:
        collector: of rank 0, without an end.
        make: builds the parts that rank 0 has, whose collector has no end; it must work in a program that has imported
            nothing yet.
        processes: where the others are hosted; a function, called with the first batch.
        learners: how many, this process among them; at most one per agent that learns.
        collect: ``each`` learner collects the same batches, or the ``first`` sends what it collects to the others.
        total_frames: stop once this many are collected; -1: never.
        threads: of the CPU that torch computes with in each learner, this one too while they learn; ``None`` for the
            defaults.
        timeout: seconds that a learner waits for the others in a step, or, where each collects, to have its batch, too.

    Raises:
        UserError: for fewer than two learners, and where each is to collect in an env whose state cannot be read; in
            ``join`` for more learners than agents, and for losses that are no sums over agents; while it learns, where
            the learners have collected different batches.
        LearnerLostError: while it learns, for a learner that is gone.

    >>> from functools import partial
    >>> from ctde_kit.distributed import AgentLearners, RayProcesses
    >>> from ctde_kit.recipes import MADDPGConfig, VmasTask
    >>> def build():
    ...     return MADDPGConfig(task=VmasTask("vmas/navigation", n_envs=2)).build()
    >>> learners = AgentLearners(build().collector, build, processes=partial(RayProcesses, "local"), learners=3)
    >>> learners.frames  # iterate lets them meet
    0
    """

    def __init__(
        self,
        collector: ExperienceCollector,
        make: Callable[[], Parts],
        *,
        processes: Callable[[], Processes],
        learners: int,
        collect: Collect = "each",
        total_frames: int = -1,
        threads: int | None = None,
        timeout: float = 60.0,
    ) -> None:
        self.collect: Collect = check_choice("AgentLearners", "collect", collect, ("each", "first"))
        if collect == "each" and isinstance(collector, RolloutCollector) and not collector.state_is_captured:
            raise UserError(
                "AgentLearners: collect='each': the state of this env cannot be read, so the others cannot go on from "
                "it: let the first send its batches, with collect='first'"
            )
        super().__init__(
            collector,
            processes=processes,
            learners=learners,
            total_frames=total_frames,
            threads=threads,
            timeout=timeout,
        )
        self.make = make
        self._agents: Mapping[str, slice] = {}
        self._parts: Parts | None = None
        self._has_other_state = False

    def _host(self, rank: int) -> Callable[[], HostedLearner]:
        return partial(HostedAgentLearner, self.make, rank, self.learners, self.threads, self.collect)

    def _start(self, parts: Parts) -> list[Answer]:
        assert self._processes is not None
        left_out = ["collector"] if self.collect == "first" else []
        states = {name: part.state_dict() for name, part in stateful_parts(parts).items() if name not in left_out}
        self._has_other_state = False
        return self._ask("take", self._processes.share(states))

    def join(self, parts: Parts) -> None:
        """Start the other learners with the state of ``parts``."""
        self._agents, self._parts = deal(agents_that_learn(parts.update), self.learners)[0], parts
        super().join(parts)

    def __iter__(self) -> Iterator[TensorDictBase]:
        average = self._met()
        batches = iter(self.own)
        while self.total_frames == -1 or self.frames < self.total_frames:
            if self._has_other_state:
                self._start_again()
            if self.collect == "each":
                self._answers = self._ask("collect_and_learn", random_state())
                batch = next(batches)
                check_same_batch(batch, self.frames, average)
            else:
                batch = next(batches)
                self._send(batch)
            yield batch
            self._wait_for_all()

    def _start_again(self) -> None:
        assert self._parts is not None
        for answer in self._start(self._parts):
            wait_for(answer)

    def _send(self, batch: TensorDictBase) -> None:
        assert self._processes is not None
        self._answers = self._ask("learn", self._processes.share(pack(batch)), self.frames, random_state())

    def learning(self) -> AbstractContextManager[None]:
        """A block inside which losses are those of rank 0's agents."""
        return sharing(self._met(), self._agents)

    def state_dict(self) -> StateDict:
        """Of rank 0's collector: it has what a run in one process has."""
        return self.own.state_dict()

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Restore what ``state_dict`` returned, or the collector of a run in one process."""
        self.own.load_state_dict(state_dict)
        self._has_other_state = True


class HostedAgentLearner(HostedLearner):
    """Learns for some agents of the batches that all learners have, in a process of its own.

    Args:
        make: builds the parts of a run; their collector has no end.
        rank: of this learner.
        count: how many there are.
        threads: of the CPU that torch computes with here.
        collect: as in ``AgentLearners``.
    """

    def __init__(self, make: Callable[[], Parts], rank: int, count: int, threads: int | None, collect: Collect) -> None:
        self._given = GivenBatches() if collect == "first" else None
        super().__init__(make, rank, count, threads)
        self._agents = deal(agents_that_learn(self.parts.update), count)[rank]

    def collect_and_learn(self, random: StateDict) -> None:
        """Collect the next batch with the random numbers of rank 0, and learn from it."""
        with self._in_step() as average, sharing(average, self._agents):
            restore_random_state(random)
            next(self._iterations)

    def learn(self, batch: Message, frames: int, random: StateDict) -> None:
        """Learn from a batch of rank 0 with its random numbers.

        Args:
            batch: what rank 0 has collected.
            frames: how many have been collected so far.
            random: the state of rank 0's generators after collecting.
        """
        assert self._given is not None
        with self._in_step() as average, sharing(average, self._agents):
            self._given.batch, self._given.frames = unpack([batch]), frames
            restore_random_state(random)
            next(self._iterations)

    def begin(self, address: str, timeout: float) -> None:
        """Meet the others."""
        super().begin(address, timeout)
        if isinstance(self.parts.collector, SameBatches):
            self.parts.collector.average = self._average

    def _built(self, parts: Parts) -> Parts:
        if self._given is None:
            return replace(parts, collector=SameBatches(parts.collector))
        parts.collector.shutdown()
        return replace(parts, collector=self._given)


class SameBatches(ShardRollouts):
    """A collector of the batches that other learners collect, too; it compares them before they are learned from."""

    def __init__(self, collector: ExperienceCollector) -> None:
        super().__init__(collector, 1)
        self.average: AverageGradients | None = None

    def __iter__(self) -> Iterator[TensorDictBase]:
        for batch in super().__iter__():
            assert self.average is not None
            check_same_batch(batch, self.frames, self.average)
            yield batch


class GivenBatches:
    """A collector of batches that someone else has collected."""

    def __init__(self) -> None:
        self.frames = 0
        self.batch: TensorDictBase | None = None

    @property
    def env(self) -> EnvBase:
        """There is none.

        Raises:
            UserError: always.
        """
        raise UserError("AgentLearners: collect='first': the first learner alone has an env")

    def __iter__(self) -> Iterator[TensorDictBase]:
        while self.batch is not None:
            yield self.batch

    def update_policy_weights_(self) -> None:
        """Does nothing: the first learner acts."""

    def shutdown(self) -> None:
        """Does nothing: there is no env."""

    def state_dict(self) -> StateDict:
        """Nothing; the first learner's collector is saved."""
        return {}

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Nothing is restored."""


def check_same_batch(batch: TensorDictBase, frames: int, average: AverageGradients) -> None:
    """Compare a fresh batch with those of the other learners, which do the same.

    Raises:
        UserError: in all learners, where they differ.
    """
    own = digest(batch)
    largest, smallest = average.max(torch.tensor([own, -own])).tolist()
    if largest != -smallest:
        raise UserError(
            f"AgentLearners: the learners have collected different batches up to {frames} frames, as unlike machines "
            "do: let the first send its batches, with collect='first'"
        )


def digest(batch: TensorDictBase) -> int:
    """A number below 2**56 that another batch hardly has."""
    hashed = hashlib.blake2b(digest_size=7)
    for key, value in sorted(batch.items(True, True), key=lambda entry: str(entry[0])):
        hashed.update(str(key).encode())
        hashed.update(value.cpu().numpy().tobytes())
    return int.from_bytes(hashed.digest(), "big")
