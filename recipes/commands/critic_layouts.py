"""``ctde critic-layouts``: the page of the study of critic layouts, once its runs have ended."""

from __future__ import annotations

import datetime
import os
import platform
from importlib.metadata import version
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from ctde_kit.files import JsonObject
from ctde_kit.recipes.commands.application import compose, compose_and_run
from ctde_kit.recipes.commands.arguments import check_arguments
from ctde_kit.recipes.commands.options import Options
from ctde_kit.recipes.commands.quoting import with_quoted_path
from ctde_kit.recipes.commands.train import recipe_config
from ctde_kit.recipes.configs.command_options import CriticLayoutsConfig
from ctde_kit.recipes.configs.data import to_data

PROGRAM = "ctde critic-layouts"
STUDY = "critic_layouts"


def critic_layouts(arguments: list[str]) -> None:
    """Do what the command line of ``ctde critic-layouts`` says."""
    options = Options.of(CriticLayoutsConfig, STUDY)
    check_arguments(PROGRAM, options, arguments)
    overrides = [with_quoted_path(argument, ("runs", "output")) for argument in arguments]
    compose_and_run(PROGRAM, STUDY, options, overrides, _start)


def study_options(algorithm: str, task: str) -> JsonObject:
    """The options of the study's runs on ``task``, as plain data."""
    return to_data(recipe_config(compose(algorithm, [f"study={STUDY}", f"task={task}"])))


def _start(cfg: DictConfig, path: Path) -> None:
    # Not before: matplotlib and numpy take their time.
    from ctde_kit.recipes.studies.critic_layouts.page import write_page
    from ctde_kit.recipes.studies.critic_layouts.runs import read_curves

    config = OmegaConf.to_object(cfg)
    assert isinstance(config, CriticLayoutsConfig)
    for written in write_page(read_curves(Path(config.runs), study_options), path, _provenance()):
        print(f"  {written}")


def _provenance() -> str:
    """When, with which PyTorch and on which machine the page was written, as a sentence."""
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"
    return f"Written {datetime.date.today().isoformat()}, torch {version('torch')}, {machine}."
