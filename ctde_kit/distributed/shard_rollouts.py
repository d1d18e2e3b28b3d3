"""The rollouts of one of several learners, which count the frames of all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from tensordict import TensorDictBase
from torchrl.envs import EnvBase

from ctde_kit.errors import UserError
from ctde_kit.protocols import ExperienceCollector, StateDict
from ctde_kit.shards import largest_of_all
from ctde_kit.training import Parts


class ShardRollouts:
    """A collector whose ``frames`` are those of ``count`` learners that each collect as much.

    Args:
        collector: of this learner.
        count: how many learners there are.

    Raises:
        UserError: while it collects inside ``sharing``, in all learners, where one has collected more than another.
    """

    def __init__(self, collector: ExperienceCollector, count: int) -> None:
        self.collector, self.count = collector, count

    @classmethod
    def of(cls, parts: Parts, count: int) -> Parts:
        """``parts`` with their collector as one of ``count``."""
        return replace(parts, collector=cls(parts.collector, count))

    @property
    def env(self) -> EnvBase:
        """Of this learner."""
        return self.collector.env

    @property
    def frames(self) -> int:
        """Env transitions that all learners have collected."""
        return self.collector.frames * self.count

    def __iter__(self) -> Iterator[TensorDictBase]:
        for batch in self.collector:
            self._check_as_many()
            yield batch

    def _check_as_many(self) -> None:
        """Schedules and the end of the run follow ``frames``, which must be the same in all learners."""
        own = self.collector.frames
        most, minus_least = largest_of_all(torch.tensor([own, -own])).tolist()
        if most != -minus_least:
            raise UserError(
                f"Learners: between {-minus_least} and {most} frames were collected by each: expected as many by all "
                "of them; give each as many envs, and steps per batch"
            )

    def update_policy_weights_(self) -> None:
        """Act with the current weights from the next batch on."""
        self.collector.update_policy_weights_()

    def shutdown(self) -> None:
        """Close the env."""
        self.collector.shutdown()

    def state_dict(self) -> StateDict:
        """Of the collector."""
        return self.collector.state_dict()

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Restore what ``state_dict`` returned."""
        self.collector.load_state_dict(state_dict)
