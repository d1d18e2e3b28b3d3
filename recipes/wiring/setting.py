"""What every recipe sets up first: seeds, device, environment and what is compiled; and its collector."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
from torchrl.envs import EnvBase

from ctde_kit.collectors import RolloutCollector
from ctde_kit.modules import TeamPolicy
from ctde_kit.recipes.configs.recipe import RecipeConfig
from ctde_kit.recipes.wiring.compiling import Compiling, resolve_compile
from ctde_kit.recipes.wiring.devices import resolve_device
from ctde_kit.recipes.wiring.transforms import with_transforms
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
    env = cfg.task.build(seed=cfg.seed, device=device)
    cfg.task.check_interests([group.name for group in TeamSpec.from_env(env)])
    # A graph keeps the values that it was traced with, and callbacks may change them.
    compile = "off" if cfg.callbacks and cfg.compile == "auto" else cfg.compile
    compiling = resolve_compile(compile, env, total_frames=cfg.total_frames, updates_per_frame=updates_per_frame)
    return Setting(env, device, compiling, cfg.frames_per_batch // env.batch_size[0])


def collector(cfg: RecipeConfig, run: Setting, team: TeamSpec, policy: TeamPolicy) -> RolloutCollector:
    """The collector of a recipe's rollouts."""
    return RolloutCollector(
        with_transforms(run.env, team, policy),
        policy,
        frames_per_batch=cfg.frames_per_batch,
        total_frames=cfg.total_frames,
        compile=run.compiling.rollouts,
    )
