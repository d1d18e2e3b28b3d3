"""The distance between values and their targets: half the squared error, or Huber's loss."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

ValueLoss = Literal["huber", "l2"]
VALUE_LOSSES: tuple[ValueLoss, ...] = get_args(ValueLoss)


def distance_to_target(delta: Tensor, value_loss: ValueLoss, huber_delta: float = 1.0) -> Tensor:
    """Half the squared error (``l2``), or Huber's loss, which turns linear at ``huber_delta``, of each entry.

    >>> distance_to_target(torch.tensor([3.0]), "l2"), distance_to_target(torch.tensor([3.0]), "huber", 2.0)
    (tensor([4.5000]), tensor([4.]))
    """
    if value_loss == "l2":
        return 0.5 * delta.square()
    return nn.functional.huber_loss(delta, torch.zeros_like(delta), reduction="none", delta=huber_delta)
