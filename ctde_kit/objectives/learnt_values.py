"""Values, what they should be, and which of them count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ctde_kit.objectives.masking import check_same_shape, masked_mean
from ctde_kit.objectives.td_loss import LossFunction, distance_to_target


@dataclass(frozen=True)
class LearntValues:
    """Values and targets ``[*B, T, n, 1]``; what is outside ``mask`` (bool, same shape) matters nowhere."""

    value: Tensor
    target: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        check_same_shape(value=self.value, target=self.target, mask=self.mask)

    @property
    def delta(self) -> Tensor:
        """Value minus target, 0 outside the mask."""
        return (self.value - self.target).masked_fill(~self.mask, 0)

    def loss(self, weight: Tensor | float, loss_function: LossFunction, huber_delta: float) -> Tensor:
        """The mean distance over what counts, each item by its importance ``weight``."""
        distance = distance_to_target(self.delta, loss_function, huber_delta)
        return (weight * distance).sum() / self.mask.sum().clamp(min=1)

    def metrics(self) -> dict[str, Tensor]:
        """Means over what counts."""
        parts = {"td_error": self.delta.abs(), "state_action_value": self.value, "target_value": self.target}
        return {name: masked_mean(part, self.mask) for name, part in parts.items()}


def joint_metrics(learnt: Mapping[str, LearntValues]) -> dict[str, Tensor]:
    """The means over groups and, where there are several, each group's own under ``{group}/``."""
    by_group = {name: values.metrics() for name, values in learnt.items()}
    names = next(iter(by_group.values()))
    metrics = {name: torch.stack([own[name] for own in by_group.values()]).mean() for name in names}
    if len(by_group) == 1:
        return metrics
    return metrics | {f"{group}/{name}": value for group, own in by_group.items() for name, value in own.items()}
