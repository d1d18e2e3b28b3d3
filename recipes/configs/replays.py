"""Replays as configurations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import ctde_kit as ck
from ctde_kit.errors import UserError
from ctde_kit.recipes.configs.checks import (
    PATH,
    CheckedConfig,
    check_choice,
    check_not_negative,
    check_positive,
)

if TYPE_CHECKING:
    from tensordict.utils import NestedKey

    from ctde_kit.data import Episodes, Replay, Sequences, Transitions


@dataclass
class ReplayForm(CheckedConfig):
    """What one item of a replay is; this is the base of all forms' configurations."""

    @property
    def burn_in_steps(self) -> int:
        """Steps of each item that only warm the hidden state up."""
        return 0

    def build(self, max_steps: int | None) -> Transitions | Sequences | Episodes:
        """The form, for episodes of at most ``max_steps``; ``None`` where that is not known."""
        raise NotImplementedError


@dataclass
class TransitionForm(ReplayForm):
    """A replay of single steps.

    >>> from ctde_kit.recipes import TransitionForm
    >>> TransitionForm().build(max_steps=100).frames_per_item
    1
    """

    def build(self, max_steps: int | None) -> Transitions:
        return ck.data.Transitions()


@dataclass
class SequenceForm(ReplayForm):
    """A replay of runs of consecutive steps of one env, from the hidden state that was stored.

    Args:
        length: steps that are learned from.
        burn_in: steps before them, which only warm the hidden state up.

    >>> from ctde_kit.recipes import SequenceForm
    >>> SequenceForm(length=20, burn_in=5).build(max_steps=100).frames_per_item
    25
    """

    length: int = 20
    burn_in: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(**{"replay.form.length": self.length})
        check_not_negative(**{"replay.form.burn_in": self.burn_in})

    @property
    def burn_in_steps(self) -> int:
        return self.burn_in

    def build(self, max_steps: int | None) -> Sequences:
        return ck.data.Sequences(self.length, self.burn_in)


@dataclass
class EpisodeForm(ReplayForm):
    """A replay of whole episodes, padded to the longest.

    Args:
        max_steps: of the longest episode; null for the task's.

    >>> from ctde_kit.recipes import EpisodeForm
    >>> EpisodeForm().build(max_steps=100).frames_per_item
    100
    """

    max_steps: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(**{"replay.form.max_steps": self.max_steps})

    def build(self, max_steps: int | None) -> Episodes:
        steps = self.max_steps or max_steps
        if steps is None:
            raise UserError(
                "replay.form.max_steps: how long this task's episodes can be is not known; give it, or task.max_steps"
            )
        return ck.data.Episodes(steps)


@dataclass
class ReplayConfig(CheckedConfig):
    """A replay buffer: what it keeps of the past, and how it is sampled.

    Args:
        form: transitions, sequences or episodes.
        capacity: frames kept, the padding of episodes included.
        batch_size: items (transitions, sequences or episodes) per update.
        prioritized: sample by the last error; else uniformly.
        alpha: exponent of the priorities.
        beta: exponent of the importance weights.
        stored_on: main memory (cpu), the training device (device), or memory-mapped files (disk).
        directory: where each run has a private directory for these files; null for the system's temporary one.

    >>> from ctde_kit.recipes import QMIXConfig, ReplayConfig, SequenceForm
    >>> config = QMIXConfig(replay=ReplayConfig(form=SequenceForm(length=10), capacity=1_000, batch_size=16))
    >>> config.build().buffer.batch_size
    16
    """

    form: ReplayForm = field(default_factory=TransitionForm)
    capacity: int = 1_000_000
    batch_size: int = 128
    prioritized: bool = False
    alpha: float = 0.6
    beta: float = 0.4
    stored_on: str = "cpu"
    directory: str | None = field(default=None, metadata=PATH)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(**{"replay.capacity": self.capacity, "replay.batch_size": self.batch_size})
        check_not_negative(**{"replay.alpha": self.alpha, "replay.beta": self.beta})
        check_choice("replay.stored_on", self.stored_on, ("cpu", "device", "disk"))

    def build(self, *, keys: Sequence[NestedKey], device: str, max_steps: int | None) -> Replay:
        return ck.Replay(
            self.form.build(max_steps),
            capacity=self.capacity,
            batch_size=self.batch_size,
            keys=keys,
            prioritized=ck.data.Prioritized(self.alpha, self.beta) if self.prioritized else None,
            stored_on=self.stored_on,  # pyright: ignore[reportArgumentType]  # a checked choice
            device=device,
            directory=self.directory,
        )
