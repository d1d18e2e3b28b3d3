"""Runs of several learners go on from their last checkpoint where one of them is lost."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from ctde_kit.errors import LearnerLostError
from ctde_kit.files import JsonObject
from ctde_kit.recipes.commands.running import resume, start
from ctde_kit.recipes.configs.recipe import RecipeConfig
from ctde_kit.training import checkpoint_paths

logger = logging.getLogger("ctde_kit")


def persist(config: RecipeConfig, path: Path, begin: Callable[[], object]) -> None:
    """Train; where a learner is lost, all go on from the last checkpoint, as often as the configuration allows.

    Args:
        config: of the run.
        path: of its directory.
        begin: starts or resumes it.

    Raises:
        LearnerLostError: for a learner that is lost once more.
    """
    allowed, restarts = config.distributed.n_restarts, 0
    while True:
        try:
            _ = begin() if restarts == 0 else _again(config, path)
            return
        except LearnerLostError as loss:
            if restarts == allowed:
                raise LearnerLostError(f"{loss}; go on with ctde-{config.algorithm} resume={path.absolute()}") from loss
            restarts += 1
            place = "go on from the last checkpoint" if checkpoint_paths(path / "checkpoints") else "start again"
            logger.warning("%s: all learners %s (restart %d of %d)", loss, place, restarts, allowed)


def _again(config: RecipeConfig, path: Path) -> JsonObject:
    if checkpoint_paths(path / "checkpoints"):
        return resume(config, path, trust=True)  # the code is what it was started with
    return start(config, path)
