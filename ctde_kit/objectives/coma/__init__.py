"""COMA's losses, of critics and of actors, and the targets of its critics."""

from ctde_kit.objectives.coma.coma_actor_loss import COMAActorLoss
from ctde_kit.objectives.coma.coma_critic_loss import COMACriticLoss
from ctde_kit.objectives.coma.coma_targets import COMATargets
from ctde_kit.objectives.coma.counterfactual import counterfactual_advantage

__all__ = ["COMAActorLoss", "COMACriticLoss", "COMATargets", "counterfactual_advantage"]
