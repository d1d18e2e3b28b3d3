"""What every recipe sets up first: seeds, device, environment and what is compiled."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
from torchrl.envs import EnvBase

from ctde_kit.errors import UserError
from ctde_kit.recipes.configs.checks import building
from ctde_kit.recipes.configs.recipe import RecipeConfig
from ctde_kit.recipes.wiring.compiling import Compiling, resolve_compile
from ctde_kit.recipes.wiring.devices import resolve_device
from ctde_kit.specs import TeamSpec


@dataclass(frozen=True)
class Setting:
    """What the parts of a run are built for.

    Args:
        env: the training environment, without transforms.
        device: cpu or cuda.
        compiling: what is compiled.
        steps_per_batch: T of collected batches ``[n_envs, T]``.
    """

    env: EnvBase
    device: str
    compiling: Compiling
    steps_per_batch: int


def begin(cfg: RecipeConfig, *, updates_per_frame: float) -> Setting:
    """Set torch's threads, seed the generators of Python, numpy and torch, and build the environment of ``cfg``."""
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    random.seed(cfg.seed)
    np.random.seed(cfg.seed)
    torch.manual_seed(cfg.seed)
    device = resolve_device(cfg.device)
    with building("task", cfg.task):
        env = cfg.task.build(seed=cfg.seed, device=device)
    cfg.task.check_interests([group.name for group in TeamSpec.from_env(env)])
    compiling = resolve_compile(
        compile_option(cfg), env, total_frames=cfg.total_frames, updates_per_frame=updates_per_frame
    )
    return Setting(env, device, compiling, _steps_per_batch(cfg, env.batch_size[0] * cfg.distributed.n_collectors))


def compile_option(cfg: RecipeConfig) -> str:
    """The option ``compile`` of ``cfg``, where ``auto`` is ``off`` if the run has callbacks.

    A graph keeps the values that it was traced with, and callbacks may change them.
    """
    return "off" if cfg.callbacks and cfg.compile == "auto" else cfg.compile


def _steps_per_batch(cfg: RecipeConfig, n_envs: int) -> int:
    """T of batches of ``n_envs`` environments, those of all collectors."""
    n_collectors = cfg.distributed.n_collectors
    if n_collectors > 1 and cfg.frames_per_batch % n_envs:
        several = max(1, round(cfg.frames_per_batch / n_envs)) * n_envs
        raise UserError(
            f"frames_per_batch={cfg.frames_per_batch}: expected a multiple of the {n_envs} environments of all "
            f"{n_collectors} collectors, such as {several}"
        )
    return cfg.frames_per_batch // n_envs
