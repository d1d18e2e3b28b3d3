"""The part of a configuration that all recipes have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from ctde_kit.recipes.checks import check_choice, check_positive

from ctde_kit.errors import UserError


@dataclass
class EvaluationConfig:
    """Greedy evaluation on an env and seeds of its own.

    Args:
        every_frames: how far apart, in frames.
        episodes: how many each time.
    """

    every_frames: int = 20_000
    episodes: int = 200
    _target_: str = "ctde_kit.recipes.config.EvaluationConfig"

    def __post_init__(self) -> None:
        check_positive(**{"evaluation.every_frames": self.every_frames, "evaluation.episodes": self.episodes})


@dataclass
class CheckpointConfig:
    """Checkpoints in the run directory.

    Args:
        every_frames: how far apart, in frames.
    """

    every_frames: int = 20_000
    _target_: str = "ctde_kit.recipes.config.CheckpointConfig"

    def __post_init__(self) -> None:
        check_positive(**{"checkpoint.every_frames": self.every_frames})


def check_run(config: Any, parts: Iterable[str]) -> None:
    """Check the common part of a recipe's configuration.

    Args:
        config: the recipe's.
        parts: options that are configurations themselves and must be given.

    Raises:
        UserError: naming the option.
    """
    for name in parts:
        if isinstance(getattr(config, name), str):
            raise UserError(f"{type(config).__name__}: {name} is missing; give a configuration of ctde_kit.recipes")
    check_choice("device", config.device, ("auto", "cpu", "cuda"))
    check_choice("compile", config.compile, ("auto", "on", "off"))
    if not isinstance(config.total_frames, int) or isinstance(config.total_frames, bool):
        raise UserError(f"total_frames={config.total_frames}: expected a whole number of frames")
    check_positive(total_frames=config.total_frames)
    if not 0 <= config.seed < 2**32:
        raise UserError(f"seed={config.seed}: expected 0 to {2**32 - 1}")


def resolve_device(device: str) -> str:
    """``cuda`` or ``cpu`` for ``auto``.

    Raises:
        UserError: for ``cuda`` where there is none.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda: PyTorch sees no CUDA device; use device=cpu, or install a CUDA build of torch")
    return device
