"""Replays as configurations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ctde_kit.recipes.checks import check_choice, check_not_negative, check_positive
from omegaconf import MISSING

from ctde_kit.data import Episodes, Prioritized, Replay, Sequences, Transitions


@dataclass
class TransitionForm:
    """Single steps."""

    _target_: str = "ctde_kit.recipes.replays.TransitionForm"

    @property
    def burn_in(self) -> int:
        return 0

    def build(self, max_steps: int) -> Transitions:
        return Transitions()


@dataclass
class SequenceForm:
    """Runs of consecutive steps of one env, from the hidden state that was stored.

    Args:
        length: steps that are learnt.
        burn_in: steps before them, which only warm the hidden state up.
    """

    length: int = 20
    burn_in: int = 0
    _target_: str = "ctde_kit.recipes.replays.SequenceForm"

    def __post_init__(self) -> None:
        check_positive(**{"replay.form.length": self.length})
        check_not_negative(**{"replay.form.burn_in": self.burn_in})

    def build(self, max_steps: int) -> Sequences:
        return Sequences(self.length, self.burn_in)


@dataclass
class EpisodeForm:
    """Whole episodes, padded to the longest.

    Args:
        max_steps: of the longest episode; null for the task's.
    """

    max_steps: int | None = None
    _target_: str = "ctde_kit.recipes.replays.EpisodeForm"

    def __post_init__(self) -> None:
        check_positive(**{"replay.form.max_steps": self.max_steps})

    @property
    def burn_in(self) -> int:
        return 0

    def build(self, max_steps: int) -> Episodes:
        return Episodes(self.max_steps or max_steps)


@dataclass
class ReplayConfig:
    """What is kept of the past, and how it is sampled.

    Args:
        form: transitions, sequences or episodes.
        capacity: frames kept, the padding of episodes included.
        batch_size: items (transitions, sequences or episodes) an update.
        prioritized: sample by the last error; else uniformly.
        alpha: exponent of the priorities.
        beta: exponent of the importance weights.
        stored_on: main memory (cpu), the training device (device), or memory-mapped files (disk).
        directory: of these files; null for a temporary one.
    """

    form: Any = MISSING
    capacity: int = 1_000_000
    batch_size: int = 128
    prioritized: bool = False
    alpha: float = 0.6
    beta: float = 0.4
    stored_on: str = "cpu"
    directory: str | None = None
    _target_: str = "ctde_kit.recipes.replays.ReplayConfig"

    def __post_init__(self) -> None:
        check_positive(**{"replay.capacity": self.capacity, "replay.batch_size": self.batch_size})
        check_not_negative(**{"replay.alpha": self.alpha, "replay.beta": self.beta})
        check_choice("replay.stored_on", self.stored_on, ("cpu", "device", "disk"))

    def build(self, *, keys: list[Any], device: str, max_steps: int) -> Replay:
        return Replay(
            self.form.build(max_steps),
            capacity=self.capacity,
            batch_size=self.batch_size,
            keys=keys,
            prioritized=Prioritized(self.alpha, self.beta) if self.prioritized else None,
            stored_on=self.stored_on,  # type: ignore[arg-type]
            device=device,
            directory=self.directory,
        )
