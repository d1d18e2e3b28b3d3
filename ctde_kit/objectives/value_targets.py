"""Values with their targets and the mask of valid entries: the loss, its errors and its metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ctde_kit.entries import check_same_shape
from ctde_kit.objectives.masking import masked_mean
from ctde_kit.objectives.value_loss import ValueLoss, distance_to_target
from ctde_kit.shards import mean_of_all


@dataclass(frozen=True)
class ValueTargets:
    """Values and their targets ``[*B, T, n, 1]``; entries outside ``mask`` (bool, same shape) change nothing."""

    value: Tensor
    target: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        check_same_shape(value=self.value, target=self.target, mask=self.mask)

    @classmethod
    def concatenate(cls, parts: Iterable[ValueTargets]) -> ValueTargets:
        """All agents of several groups, side by side."""
        values, targets, masks = zip(*((part.value, part.target, part.mask) for part in parts), strict=True)
        return cls(torch.cat(values, -2), torch.cat(targets, -2), torch.cat(masks, -2))

    @property
    def delta(self) -> Tensor:
        """Value minus target, 0 outside the mask."""
        return (self.value - self.target).masked_fill(~self.mask, 0)

    def loss(self, weight: Tensor | float, value_loss: ValueLoss, huber_delta: float) -> Tensor:
        """The mean distance over valid entries, each item multiplied by its importance ``weight``."""
        distance = distance_to_target(self.delta, value_loss, huber_delta)
        return mean_of_all((weight * distance).sum(), self.mask.sum())

    def metrics(self, value_name: str) -> dict[str, Tensor]:
        """Means over valid entries; that of the value is called ``value_name``."""
        entries = {"td_error": self.delta.abs(), value_name: self.value, "target_value": self.target}
        return {name: masked_mean(entry, self.mask) for name, entry in entries.items()}


def joint_metrics(targets: Mapping[str, ValueTargets], value_name: str) -> dict[str, Tensor]:
    """The metrics' means over groups and, where there are several groups, each group's own under ``{group}/``."""
    by_group = {group: values.metrics(value_name) for group, values in targets.items()}
    names = next(iter(by_group.values()))
    metrics = {name: torch.stack([means[name] for means in by_group.values()]).mean() for name in names}
    if len(by_group) == 1:
        return metrics
    return metrics | {f"{group}/{name}": mean for group, means in by_group.items() for name, mean in means.items()}
