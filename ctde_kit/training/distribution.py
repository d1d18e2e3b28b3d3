"""How a figure is distributed over episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True)
class Distribution:
    """A figure's distribution over episodes.

    Args:
        mean: of all episodes.
        standard_error: of the mean; ``None`` for a single episode.
        iqm: the interquartile mean, of the middle half (Agarwal et al. 2021).
        quantiles: by their share.

    >>> from ctde_kit.training.distribution import Distribution
    >>> Distribution.of([0.0, 1.0, 2.0, 9.0]).iqm
    1.5
    """

    mean: float
    standard_error: float | None
    iqm: float
    quantiles: Mapping[str, float]

    @classmethod
    def of(cls, values: Sequence[float]) -> Distribution:
        """The distribution of one value per episode."""
        ordered = torch.tensor(values, dtype=torch.float64).sort().values
        count = len(ordered)
        cut = count // 4
        return cls(
            mean=ordered.mean().item(),
            standard_error=(ordered.std() / count**0.5).item() if count > 1 else None,
            iqm=ordered[cut : count - cut].mean().item(),
            quantiles={f"{share:g}": ordered.quantile(share).item() for share in QUANTILES},
        )
