"""How far a value is from its target."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ctde_kit.errors import UserError

LossFunction = Literal["huber", "l2"]


def check_loss_function(name: str) -> None:
    """Raise ``UserError`` for another word than ``huber`` and ``l2``."""
    if name not in get_args(LossFunction):
        raise UserError(f"loss_function={name!r}: expected one of {', '.join(get_args(LossFunction))}")


def distance_to_target(delta: Tensor, loss_function: LossFunction, huber_delta: float = 1.0) -> Tensor:
    """Half the squared error (``l2``), or Huber's loss, which turns linear at ``huber_delta``, of each entry.

    >>> distance_to_target(torch.tensor([3.0]), "l2"), distance_to_target(torch.tensor([3.0]), "huber", 2.0)
    (tensor([4.5000]), tensor([4.]))
    """
    if loss_function == "l2":
        return 0.5 * delta.square()
    return nn.functional.huber_loss(delta, torch.zeros_like(delta), reduction="none", delta=huber_delta)
