"""Finished runs, loaded back."""

from __future__ import annotations

import importlib
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra.utils
import numpy as np
import torch
import yaml
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ctde_kit.errors import UserError
from ctde_kit.training import Parts, latest_checkpoint, load_parts, read_checkpoint


@dataclass(frozen=True)
class LoadedRun:
    """A run as its last checkpoint left it.

    Args:
        config: the recipe's configuration.
        parts: its parts, ``parts.policy`` among them.
        frames: collected so far.
    """

    config: Any
    parts: Parts
    frames: int

    @property
    def policy(self) -> Any:
        """The policy of all groups; greedy under ``ExplorationType.DETERMINISTIC``, the default outside collectors."""
        return self.parts.policy

    @property
    def env(self) -> Any:
        """The training env, with the transforms that the policy needs."""
        return self.parts.collector.env


def load(run_directory: str | Path, device: str | None = None) -> LoadedRun:
    """Load a run directory: ``policy = load("runs/...").policy``.

    The program's random state is left as it was.

    Args:
        run_directory: as the command line printed it.
        device: where to put it, ``None`` for where the run was.

    Raises:
        UserError: where it holds no configuration or no whole checkpoint.
    """
    directory = Path(run_directory)
    cfg = read_config(directory)
    if device is not None:
        cfg.device = device
    config = instantiate_config(cfg)
    content = read_checkpoint(latest_checkpoint(directory / "checkpoints"), algorithm=config.algorithm)
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        parts = importlib.import_module(f"ctde_kit.recipes.{config.algorithm}").build(config)
        frames = load_parts(content, parts)
    random.setstate(python)
    np.random.set_state(numpy)
    return LoadedRun(config, parts, frames)


def read_config(directory: Path) -> DictConfig:
    """The ``config.yaml`` of a run directory."""
    path = directory / "config.yaml"
    if not path.is_file():
        raise UserError(f"{directory} is no run directory: it has no config.yaml")
    try:
        config = OmegaConf.load(path)
    except (OSError, ValueError, OmegaConfBaseException, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(config, DictConfig) or not {"algorithm", "_target_"} <= set(config):
        raise UserError(f"{path} is no whole configuration of a run: restore it, or start a new run")
    return config


def instantiate_config(cfg: DictConfig) -> Any:
    """The recipe's dataclass, checked; hydra's wrapping of a mistake's message is undone."""
    try:
        return hydra.utils.instantiate(cfg, _convert_="all")
    except InstantiationException as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, UserError):
            cause = cause.__cause__
        if cause is None:
            raise
        raise cause from None
