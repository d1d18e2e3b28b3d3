"""MASAC's loss, and the parts that only this loss uses."""

from ctde_kit.objectives.masac.masac_loss import MASACLoss

__all__ = ["MASACLoss"]
