"""Losses and targets."""

from ctde_kit.objectives.advantage import AdvantageEstimator
from ctde_kit.objectives.mappo import MAPPOLoss
from ctde_kit.objectives.masking import masked_mean, normalize_advantage
from ctde_kit.objectives.q_targets import NStepReturn, TDLambdaReturn
from ctde_kit.objectives.qmix import QMixLoss
from ctde_kit.objectives.returns import generalized_advantage_estimate, n_step_return, td_lambda_return
from ctde_kit.objectives.team_reward import TeamReward

__all__ = [
    "AdvantageEstimator",
    "MAPPOLoss",
    "NStepReturn",
    "QMixLoss",
    "TDLambdaReturn",
    "TeamReward",
    "generalized_advantage_estimate",
    "masked_mean",
    "n_step_return",
    "normalize_advantage",
    "td_lambda_return",
]
