"""The options of commands that are not recipes."""

from __future__ import annotations

from dataclasses import dataclass, field

from ctde_kit.recipes.configs.checks import PATH, CheckedConfig, check_choice, check_positive
from ctde_kit.recipes.configs.opponents import OpponentConfig
from ctde_kit.recipes.configs.tasks.task import TaskConfig


@dataclass
class CrossPlayConfig(CheckedConfig):
    """Options of ``ctde cross-play``, which plays every policy of one group against every policy of another.

    Args:
        task: what is played; null for the runs' own.
        policies: by group and any name, who plays: ``ctde_kit.recipes.configs.opponents``.
        episodes: of each pairing, rounded up to a multiple of the envs.
        seed: chooses the evaluation seeds, as a run's seed does.
        device: auto, cpu or cuda.
        trust: whether a user's own code that the runs' task names may be imported and run.
    """

    task: TaskConfig | None = None
    policies: dict[str, dict[str, OpponentConfig]] = field(default_factory=dict)
    episodes: int = 500
    seed: int = 0
    device: str = "auto"
    trust: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(episodes=self.episodes)
        check_choice("device", self.device, ("auto", "cpu", "cuda"))


@dataclass
class CriticLayoutsConfig(CheckedConfig):
    """Options of ``ctde critic-layouts``, the page of the study of critic layouts.

    Args:
        runs: directory of the runs, ``LAYOUT/seed_SEED`` below it.
        output: where the page, its picture and its figures go.
    """

    runs: str = field(default="runs/studies/critic_layouts/mappo", metadata=PATH)
    output: str = field(default="runs/studies/critic_layouts/mappo/report", metadata=PATH)
