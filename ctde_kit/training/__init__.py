"""Training: the loop and its runner, gradient steps, schedules, evaluation, checkpoints and run directories."""

from ctde_kit.training import reporting
from ctde_kit.training.annealing import Annealing, LinearEpsilon, LinearLearningRate
from ctde_kit.training.averaging import ParameterAverage
from ctde_kit.training.best_policy import BestPolicy, best_policies
from ctde_kit.training.callbacks import Callbacks
from ctde_kit.training.checkpoint import (
    checkpoint_path,
    checkpoint_paths,
    frames_of,
    latest_checkpoint,
    load_parts,
    read_checkpoint,
    save_checkpoint,
    stateful_parts,
)
from ctde_kit.training.critic_then_actor import CriticEpochs, CriticThenActor
from ctde_kit.training.episode_returns import Returns
from ctde_kit.training.evaluation import evaluate, record_episode, reported_metrics
from ctde_kit.training.evaluation_log import EvaluationLog, read_evaluations
from ctde_kit.training.evaluations import Evaluations
from ctde_kit.training.gradient_step import GradientStep, HoldsGradientSteps
from ctde_kit.training.group_critics import GroupCritics, group_critics
from ctde_kit.training.loop import iterate
from ctde_kit.training.pairings import CrossPlay, cross_play
from ctde_kit.training.parts import Iteration, Parts
from ctde_kit.training.random_state import random_state, restore_random_state, unchanged_random_state
from ctde_kit.training.run_directory import RunDirectory, read_metrics
from ctde_kit.training.runner import Run, run
from ctde_kit.training.sequential_update import SequentialEpochs, SequentialUpdate
from ctde_kit.training.target_networks import HardUpdate, PolyakUpdate, UpdateWithTargets
from ctde_kit.training.update_schedules import Epochs, UpdatesPerFrame

__all__ = [
    "Annealing",
    "BestPolicy",
    "Callbacks",
    "CriticEpochs",
    "CriticThenActor",
    "CrossPlay",
    "Epochs",
    "EvaluationLog",
    "Evaluations",
    "GradientStep",
    "GroupCritics",
    "HardUpdate",
    "HoldsGradientSteps",
    "Iteration",
    "LinearEpsilon",
    "LinearLearningRate",
    "ParameterAverage",
    "Parts",
    "PolyakUpdate",
    "Returns",
    "Run",
    "RunDirectory",
    "SequentialEpochs",
    "SequentialUpdate",
    "UpdateWithTargets",
    "UpdatesPerFrame",
    "best_policies",
    "checkpoint_path",
    "checkpoint_paths",
    "cross_play",
    "evaluate",
    "frames_of",
    "group_critics",
    "iterate",
    "latest_checkpoint",
    "load_parts",
    "random_state",
    "read_checkpoint",
    "read_evaluations",
    "read_metrics",
    "record_episode",
    "reported_metrics",
    "reporting",
    "restore_random_state",
    "run",
    "save_checkpoint",
    "stateful_parts",
    "unchanged_random_state",
]
