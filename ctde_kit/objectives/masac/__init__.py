"""MASAC's loss, and the parts that only this loss uses."""

from ctde_kit.objectives.masac.masac_loss import MASACLoss
from ctde_kit.objectives.masac.mutual_information import MutualInformation

__all__ = ["MASACLoss", "MutualInformation"]
