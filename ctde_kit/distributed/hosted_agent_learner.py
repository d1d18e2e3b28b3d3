"""One of the learners that share agents, in a process of its own, as that process sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal

from tensordict import TensorDictBase
from torchrl.envs import EnvBase

from ctde_kit.distributed.dealt_agents import agents_that_learn, deal
from ctde_kit.distributed.hosted_learner import HostedLearner
from ctde_kit.distributed.messages import Message, unpack
from ctde_kit.distributed.same_batches import SameBatches
from ctde_kit.errors import UserError
from ctde_kit.protocols import StateDict
from ctde_kit.shards import sharing
from ctde_kit.training import Parts, restore_random_state

Collect = Literal["each", "first"]


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
