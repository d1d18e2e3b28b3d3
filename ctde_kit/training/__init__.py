"""The loop, gradient steps, evaluation, checkpoints and run directories."""

from ctde_kit.training.averaging import ParameterAverage
from ctde_kit.training.checkpoint import (
    checkpoint_paths,
    latest_checkpoint,
    load_parts,
    read_checkpoint,
    save_checkpoint,
)
from ctde_kit.training.cross_play import CrossPlay, cross_play
from ctde_kit.training.evaluation import Returns, evaluate, record_episode
from ctde_kit.training.exploration import Annealing, LinearEpsilon
from ctde_kit.training.gradient_step import GradientStep
from ctde_kit.training.heatmap import plot_cross_play
from ctde_kit.training.loop import Run, run
from ctde_kit.training.parts import Iteration, Parts, iterate
from ctde_kit.training.run_directory import RunDirectory, read_metrics
from ctde_kit.training.schedule import Epochs, LinearLearningRate
from ctde_kit.training.targets import HardUpdate, PolyakUpdate, UpdateWithTargets
from ctde_kit.training.updates_per_frame import UpdatesPerFrame

__all__ = [
    "Annealing",
    "CrossPlay",
    "Epochs",
    "GradientStep",
    "HardUpdate",
    "Iteration",
    "LinearEpsilon",
    "LinearLearningRate",
    "ParameterAverage",
    "Parts",
    "PolyakUpdate",
    "Returns",
    "Run",
    "RunDirectory",
    "UpdateWithTargets",
    "UpdatesPerFrame",
    "checkpoint_paths",
    "cross_play",
    "evaluate",
    "iterate",
    "latest_checkpoint",
    "load_parts",
    "plot_cross_play",
    "read_checkpoint",
    "read_metrics",
    "record_episode",
    "run",
    "save_checkpoint",
]
