"""Learners that share the agents of every batch, as the collector of the first of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Literal

from tensordict import TensorDictBase
from torchrl.envs import EnvBase

from ctde_kit.distributed.gradients import AverageGradients
from ctde_kit.distributed.hosted_learner import HostedLearner
from ctde_kit.distributed.learners_in_step import LearnersInStep, wait_for
from ctde_kit.distributed.messages import Message, pack, unpack
from ctde_kit.distributed.own_agents import agents_that_learn, deal
from ctde_kit.distributed.processes import Answer, Processes
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
        timeout: seconds that a learner waits for the others in a step.

    Raises:
        UserError: for fewer than two learners; in ``join`` for more learners than agents, and for losses that are no
            sums over agents; while it learns, where a learner has collected another batch than rank 0.
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
        super().__init__(
            collector,
            processes=processes,
            learners=learners,
            total_frames=total_frames,
            threads=threads,
            timeout=timeout,
        )
        self.make = make
        self.collect: Collect = check_choice("AgentLearners", "collect", collect, ("each", "first"))
        self._agents: Mapping[str, slice] = {}
        self._parts: Parts | None = None
        self._has_other_state = False

    def _host(self, rank: int) -> Callable[[], HostedLearner]:
        return partial(HostedAgentLearner, self.make, rank, self.learners, self.threads, self.collect)

    def _start(self, parts: Parts) -> list[Answer]:
        assert self._processes is not None
        self._agents, self._parts = deal(agents_that_learn(parts.update), self.learners)[0], parts
        left_out = ["collector"] if self.collect == "first" else []
        states = {name: part.state_dict() for name, part in stateful_parts(parts).items() if name not in left_out}
        self._has_other_state = False
        return self._ask("start", self._processes.share(states), self.frames)

    def __iter__(self) -> Iterator[TensorDictBase]:
        _ = self._met()
        batches = iter(self.own)
        while self.total_frames == -1 or self.frames < self.total_frames:
            if self._has_other_state:
                self._start_again()
            if self.collect == "each":
                self._answers = self._ask("collect_and_learn", random_state())
                batch = next(batches)
            else:
                batch = next(batches)
                self._send(batch)
            yield batch
            self._check_batches(batch)

    def _start_again(self) -> None:
        assert self._parts is not None
        for answer in self._start(self._parts):
            wait_for(answer)

    def _send(self, batch: TensorDictBase) -> None:
        assert self._processes is not None
        self._answers = self._ask("learn", self._processes.share(pack(batch)), self.frames, random_state())

    def _check_batches(self, batch: TensorDictBase) -> None:
        """Wait for the others, and see whether they have learned from the same batch."""
        sums = [wait_for(answer) for answer in self._answers]
        self._answers = []
        own = checksum(batch)
        for rank, found in enumerate(sums, start=1):
            if found != own:
                raise UserError(
                    f"AgentLearners: learner {rank + 1} of {self.learners} has collected another batch at "
                    f"{self.frames} frames, as unlike machines do: let the first send its batches, with collect='first'"
                )

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

    def start(self, states: StateDict, frames: int) -> None:
        """Go on with the state of rank 0's parts, after so many frames."""
        self.take(states)
        self.parts.anneal(frames)

    def collect_and_learn(self, random: StateDict) -> float:
        """Collect the next batch with the random numbers of rank 0, and learn from it; returns its checksum."""
        restore_random_state(random)
        return self._checksum_after_learning()

    def learn(self, batch: Message, frames: int, random: StateDict) -> float:
        """Learn from a batch of rank 0 with its random numbers; returns its checksum.

        Args:
            batch: what rank 0 has collected.
            frames: how many have been collected so far.
            random: the state of rank 0's generators after collecting.
        """
        assert self._given is not None
        self._given.batch, self._given.frames = unpack([batch]), frames
        restore_random_state(random)
        return self._checksum_after_learning()

    def _built(self, parts: Parts) -> Parts:
        if self._given is None:
            return parts
        parts.collector.shutdown()
        return replace(parts, collector=self._given)

    def _sharing(self, average: AverageGradients) -> AbstractContextManager[None]:
        return sharing(average, self._agents)

    def _checksum_after_learning(self) -> float:
        return checksum(self._next().batch)


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


def checksum(batch: TensorDictBase) -> float:
    """The sum of all entries, in double precision."""
    entries = sorted(batch.items(True, True), key=lambda entry: str(entry[0]))
    return sum(value.double().sum().item() for _, value in entries)
