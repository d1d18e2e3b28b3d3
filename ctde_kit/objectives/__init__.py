"""Losses of MAPPO, HAPPO, QMIX, MADDPG, MASAC and COMA, advantages, and returns."""

from ctde_kit.objectives.advantage import AdvantageEstimator
from ctde_kit.objectives.central_value import CentralValue
from ctde_kit.objectives.coma import COMAActorLoss, COMACriticLoss, COMATargets, counterfactual_advantage
from ctde_kit.objectives.happo import HAPPOLoss
from ctde_kit.objectives.maddpg import MADDPGLoss, MinimaxAdversary, PolicyInference, TargetPolicySmoothing
from ctde_kit.objectives.mappo_loss import MAPPOLoss
from ctde_kit.objectives.masac import MASACLoss, MutualInformation
from ctde_kit.objectives.masking import masked_mean, normalize_advantage
from ctde_kit.objectives.qmix_loss import QMixLoss
from ctde_kit.objectives.return_estimators import NStepReturn, TDLambdaReturn
from ctde_kit.objectives.returns import generalized_advantage_estimate, n_step_return, td_lambda_return
from ctde_kit.objectives.shared_reward import shared_reward
from ctde_kit.objectives.team_reward import TeamReward

__all__ = [
    "AdvantageEstimator",
    "COMAActorLoss",
    "COMACriticLoss",
    "COMATargets",
    "CentralValue",
    "HAPPOLoss",
    "MADDPGLoss",
    "MAPPOLoss",
    "MASACLoss",
    "MinimaxAdversary",
    "MutualInformation",
    "NStepReturn",
    "PolicyInference",
    "QMixLoss",
    "TDLambdaReturn",
    "TargetPolicySmoothing",
    "TeamReward",
    "counterfactual_advantage",
    "generalized_advantage_estimate",
    "masked_mean",
    "n_step_return",
    "normalize_advantage",
    "shared_reward",
    "td_lambda_return",
]
