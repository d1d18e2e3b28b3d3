"""A collector in a process of its own, as that process sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import nn

from ctde_kit.collectors import RolloutCollector
from ctde_kit.distributed.messages import Message, pack, to_tensors
from ctde_kit.errors import UserError
from ctde_kit.protocols import StateDict
from ctde_kit.training.random_state import random_state, restore_random_state


@dataclass(frozen=True)
class CollectorState:
    """What a collector and its random generators go on from; ``collector`` is ``None`` where it cannot be captured."""

    collector: StateDict | None
    random: StateDict


@dataclass(frozen=True)
class Collected:
    """A batch, what the collector goes on from after it, and whether its steps are compiled."""

    batch: Message
    after: CollectorState
    compiled: bool


class HostedCollector:
    """Collects batches with the weights that it is given, and says after each what it goes on from.

    Args:
        make: builds the collector, whose policy is a module.
        threads: of the CPU that torch computes with here.
        seed: of the random generators, once the collector is built; ``None`` leaves them as building did.
    """

    def __init__(self, make: Callable[[], RolloutCollector], threads: int | None, seed: int | None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.collector = make()
        self.collector.total_frames = -1
        if not isinstance(self.collector.policy, nn.Module):
            raise UserError(
                f"RemoteRollouts: expected a policy that is a module, found {type(self.collector.policy).__name__}"
            )
        self._policy: nn.Module = self.collector.policy
        self._batches: Iterator[TensorDictBase] = iter(self.collector)
        if seed is not None:
            torch.manual_seed(seed)

    def collect(self, weights: dict[str, Any], random: StateDict | None) -> Collected:
        """The next batch.

        Args:
            weights: of the policy.
            random: the state of the random generators to draw with, ``None`` for this process's own.
        """
        self._policy.load_state_dict(to_tensors(weights))
        if random is not None:
            restore_random_state(random)
        batch = pack(next(self._batches))
        state = self.collector.state_dict() if self.collector.state_is_captured else None
        return Collected(batch, CollectorState(state, random_state()), self.collector.compile)

    def state(self) -> CollectorState:
        """For a checkpoint; it ends all episodes of an env whose state cannot be captured."""
        return CollectorState(self.collector.state_dict(), random_state())

    def restore(self, state: CollectorState) -> None:
        """Go on from ``state``."""
        if state.collector is not None:
            self.collector.load_state_dict(state.collector)
        restore_random_state(state.random)

    def begin_anew(self, seed: int) -> None:
        """Draw other episodes from here on: those of the first start were seen already."""
        self.collector.set_seed(seed)
        torch.manual_seed(seed)

    def close(self) -> None:
        """Close the env."""
        self.collector.shutdown()
