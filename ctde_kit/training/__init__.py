"""The loop, gradient steps, evaluation, checkpoints and run directories."""

from ctde_kit.training.checkpoint import latest_checkpoint, load_parts, read_checkpoint, save_checkpoint
from ctde_kit.training.evaluation import Returns, evaluate, record_episode
from ctde_kit.training.gradient_step import GradientStep
from ctde_kit.training.loop import Run, run
from ctde_kit.training.parts import Iteration, NotFiniteError, Parts, iterate
from ctde_kit.training.run_directory import RunDirectory
from ctde_kit.training.schedule import Epochs, LinearLearningRate

__all__ = [
    "Epochs",
    "GradientStep",
    "Iteration",
    "LinearLearningRate",
    "NotFiniteError",
    "Parts",
    "Returns",
    "Run",
    "RunDirectory",
    "evaluate",
    "iterate",
    "latest_checkpoint",
    "load_parts",
    "read_checkpoint",
    "record_episode",
    "run",
    "save_checkpoint",
]
