"""MADDPG's loss and its parts, some of which MASAC's loss also uses."""

from ctde_kit.objectives.maddpg.inference import PolicyInference
from ctde_kit.objectives.maddpg.loss import MADDPGLoss
from ctde_kit.objectives.maddpg.minimax import MinimaxAdversary
from ctde_kit.objectives.maddpg.target_smoothing import TargetPolicySmoothing

__all__ = ["MADDPGLoss", "MinimaxAdversary", "PolicyInference", "TargetPolicySmoothing"]
