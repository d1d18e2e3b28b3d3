"""HAPPO: the loss of a group, and of each of its agents and its critic alone."""

from ctde_kit.objectives.happo.happo_loss import HAPPOLoss
from ctde_kit.objectives.happo.learners import AgentLearner, CriticLearner

__all__ = ["AgentLearner", "CriticLearner", "HAPPOLoss"]
