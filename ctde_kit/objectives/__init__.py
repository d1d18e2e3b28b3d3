"""Losses and targets."""

from ctde_kit.objectives.advantage import AdvantageEstimator
from ctde_kit.objectives.mappo import MAPPOLoss
from ctde_kit.objectives.masking import masked_mean, normalize_advantage
from ctde_kit.objectives.returns import generalized_advantage_estimate, n_step_return, td_lambda_return

__all__ = [
    "AdvantageEstimator",
    "MAPPOLoss",
    "generalized_advantage_estimate",
    "masked_mean",
    "n_step_return",
    "normalize_advantage",
    "td_lambda_return",
]
