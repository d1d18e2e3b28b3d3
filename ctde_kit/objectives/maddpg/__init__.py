"""MADDPG: its loss and its parts, on some of which MASAC's loss stands, too."""

from ctde_kit.objectives.maddpg.inference import PolicyInference
from ctde_kit.objectives.maddpg.loss import MADDPGLoss
from ctde_kit.objectives.maddpg.minimax import MinimaxAdversary
from ctde_kit.objectives.maddpg.target_smoothing import TargetPolicySmoothing

__all__ = ["MADDPGLoss", "MinimaxAdversary", "PolicyInference", "TargetPolicySmoothing"]
