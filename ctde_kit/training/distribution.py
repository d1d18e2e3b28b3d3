"""How a figure is distributed over episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

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
        found = np.array(values, dtype=np.float64)
        count = len(found)
        return cls(
            mean=float(found.mean()),
            standard_error=float(found.std(ddof=1) / count**0.5) if count > 1 else None,
            iqm=float(interquartile_mean(found)),
            quantiles={f"{share:g}": float(np.quantile(found, share)) for share in QUANTILES},
        )


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """The mean of the middle half along the first axis (Agarwal et al. 2021).

    It is rliable's ``aggregate_iqm``, whose checks take most of its time.
    """
    ordered = np.sort(values, axis=0)
    cut = len(ordered) // 4
    return ordered[cut : len(ordered) - cut].mean(0)
