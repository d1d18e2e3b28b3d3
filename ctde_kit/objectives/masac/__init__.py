"""MASAC: its loss, and what only this loss uses."""

from ctde_kit.objectives.masac.masac_loss import MASACLoss

__all__ = ["MASACLoss"]
