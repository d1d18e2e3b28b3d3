"""What an env answers while its steps and resets are traced, and it must not run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from tensordict import TensorDictBase


@dataclass
class StandIn:
    """Answers of an env that does not run.

    Args:
        after_step: what each step gives.
        after_reset: what each reset gives.
        asked: what each step was given.
    """

    after_step: TensorDictBase
    after_reset: TensorDictBase
    asked: list[TensorDictBase] = field(default_factory=list)

    def step(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Note what the step was given, and answer."""
        self.asked.append(tensordict)
        return self.after_step.copy()


class Answering:
    """Base of envs whose ``_step`` and ``_reset`` answer with ``_stand_in`` where there is one, and do not run."""

    _stand_in: StandIn | None = None

    @contextlib.contextmanager
    def answering(self, step: TensorDictBase, reset: TensorDictBase) -> Iterator[list[TensorDictBase]]:
        """Inside the block nothing runs: ``_step`` gives ``step`` and ``_reset`` gives ``reset``."""
        self._stand_in = StandIn(step, reset)
        try:
            yield self._stand_in.asked
        finally:
            self._stand_in = None
