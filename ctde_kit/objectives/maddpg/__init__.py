"""MADDPG: its loss, and what only this loss uses."""

from ctde_kit.objectives.maddpg.inference import PolicyInference
from ctde_kit.objectives.maddpg.loss import MADDPGLoss
from ctde_kit.objectives.maddpg.minimax import MinimaxAdversary

__all__ = ["MADDPGLoss", "MinimaxAdversary", "PolicyInference"]
