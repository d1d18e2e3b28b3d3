"""The options of ``ctde-critic-layouts``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class CriticLayoutsConfig:
    """Options of ``ctde-critic-layouts``, the page of the study of critic layouts.

    Args:
        runs: directory of the runs, ``LAYOUT/seed_SEED`` below it.
        output: where the page, its picture and its figures go.
    """

    runs: str = "runs/studies/critic_layouts/mappo"
    output: str = "runs/studies/critic_layouts/mappo/report"
