"""Interquartile means and bootstrap intervals over seeds, by rliable (Agarwal et al. 2021)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ctde_kit.errors import UserError

CONFIDENCE = 0.95
RESAMPLES = 5_000
CURVE_RESAMPLES = 1_000


@dataclass(frozen=True)
class Estimate:
    """An interquartile mean, or a difference of two, and its bootstrap interval.

    Args:
        value: a number, or one for each evaluation of a curve ``[F]``.
        low: lower end of the interval.
        high: upper end of the interval.
    """

    value: Any
    low: Any
    high: Any

    @property
    def beyond_noise(self) -> bool:
        """The interval excludes 0."""
        return bool(self.low > 0 or self.high < 0)


def interquartile_means(scores: dict[str, np.ndarray], *, seed: int = 0) -> dict[str, Estimate]:
    """The interquartile mean over seeds of each entry.

    Args:
        scores: by name, ``[seeds]``, or curves ``[seeds, F]``.
        seed: of the resampling.
    """
    metrics = _rliable().metrics
    shaped = {name: _with_one_task(values) for name, values in scores.items()}
    curves = next(iter(shaped.values())).ndim == 3

    def aggregate(values: np.ndarray) -> np.ndarray:
        if values.ndim == 2:
            return np.array([metrics.aggregate_iqm(values)])
        return np.array([metrics.aggregate_iqm(values[..., index]) for index in range(values.shape[-1])])

    resamples = CURVE_RESAMPLES if curves else RESAMPLES
    points, intervals = _estimates(shaped, aggregate, resamples, CONFIDENCE, seed)
    if curves:
        return {name: Estimate(points[name], intervals[name][0], intervals[name][1]) for name in scores}
    return {name: Estimate(points[name][0], intervals[name][0, 0], intervals[name][1, 0]) for name in scores}


def differences(
    scores: dict[str, np.ndarray], pairs: Iterable[tuple[str, str]], *, n_comparisons: int = 1, seed: int = 0
) -> dict[tuple[str, str], Estimate]:
    """The interquartile mean of the first of each pair less that of the second.

    Args:
        scores: by name, ``[seeds]``.
        pairs: of names.
        n_comparisons: made together: each interval is as wide as Bonferroni's correction asks.
        seed: of the resampling.
    """
    metrics = _rliable().metrics
    pairs = list(pairs)
    shaped = {
        f"{first},{second}": (_with_one_task(scores[first]), _with_one_task(scores[second])) for first, second in pairs
    }

    def difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return np.array([metrics.aggregate_iqm(first) - metrics.aggregate_iqm(second)])

    points, intervals = _estimates(shaped, difference, RESAMPLES, 1 - (1 - CONFIDENCE) / n_comparisons, seed)
    return {
        (first, second): Estimate(
            points[f"{first},{second}"][0],
            intervals[f"{first},{second}"][0, 0],
            intervals[f"{first},{second}"][1, 0],
        )
        for first, second in pairs
    }


def _with_one_task(values: np.ndarray) -> np.ndarray:
    return values[:, None]


def _estimates(
    scores: dict[str, Any], function: Callable[..., np.ndarray], resamples: int, confidence: float, seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    with warnings.catch_warnings():
        # rliable hands its resampling library a generator by an argument that this one will rename.
        warnings.filterwarnings("ignore", "random_state is deprecated", FutureWarning)
        return _rliable().library.get_interval_estimates(
            scores,
            function,
            reps=resamples,
            confidence_interval_size=confidence,
            random_state=np.random.RandomState(seed),
        )


def _rliable() -> Any:
    try:
        import rliable.library
        import rliable.metrics
    except ImportError as error:
        raise UserError(f'rliable is missing ({error}): pip install "ctde-kit[study]"') from error
    return rliable
