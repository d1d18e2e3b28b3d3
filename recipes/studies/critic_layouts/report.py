"""``ctde-critic-layouts``: the page of a study whose runs have ended."""

from __future__ import annotations

import datetime
import os
import platform
from dataclasses import dataclass
from pathlib import Path

import torch
from ctde_kit.recipes.cli import compose_and_run, guarded
from ctde_kit.recipes.loading import instantiate_config
from ctde_kit.recipes.studies.critic_layouts.page import write_page
from ctde_kit.recipes.studies.critic_layouts.runs import read_curves
from omegaconf import DictConfig

PROGRAM = "ctde-critic-layouts"


@dataclass
class CriticLayoutsConfig:
    """Options of ``ctde-critic-layouts``.

    Args:
        runs: directory of the runs, ``LAYOUT/seed_SEED`` below it.
        output: where the page, its picture and its figures go.
    """

    runs: str = "runs/studies/critic_layouts/mappo"
    output: str = "runs/studies/critic_layouts/mappo/report"
    _target_: str = "ctde_kit.recipes.studies.critic_layouts.report.CriticLayoutsConfig"


def _start(cfg: DictConfig, path: Path) -> None:
    config: CriticLayoutsConfig = instantiate_config(cfg)
    for written in write_page(read_curves(Path(config.runs)), path, _made()):
        print(f"  {written}")


def _made() -> str:
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"
    return f"Written {datetime.date.today().isoformat()}, torch {torch.__version__}, {machine}."


def _run(arguments: list[str]) -> None:
    compose_and_run(PROGRAM, "critic_layouts", arguments, _start)


main = guarded(PROGRAM, _run)

if __name__ == "__main__":
    main()
