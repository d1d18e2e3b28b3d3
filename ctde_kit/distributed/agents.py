"""Learners that share the agents of every batch, as the collector of the first of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial

from tensordict import TensorDictBase

from ctde_kit.collectors import RolloutCollector
from ctde_kit.distributed.dealt_agents import agents_that_learn, deal
from ctde_kit.distributed.hosted_agent_learner import Collect, HostedAgentLearner
from ctde_kit.distributed.hosted_learner import HostedLearner
from ctde_kit.distributed.learners_in_step import LearnersInStep, wait_for
from ctde_kit.distributed.messages import pack
from ctde_kit.distributed.processes import Answer, Processes
from ctde_kit.distributed.same_batches import check_same_batch
from ctde_kit.errors import UserError, check_choice
from ctde_kit.protocols import ExperienceCollector, StateDict
from ctde_kit.shards import sharing
from ctde_kit.training import Parts, random_state, stateful_parts


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
        # Reading the state of an env that cannot be captured ends its episodes, so it is read only where it is needed.
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
