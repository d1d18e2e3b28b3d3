"""Interquartile means with bootstrap intervals over seeds, by rliable (Agarwal et al. 2021); differences of means."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ctde_kit.errors import UserError

CONFIDENCE = 0.95
RESAMPLES = 5_000
CURVE_RESAMPLES = 1_000


@dataclass(frozen=True)
class Estimate:
    """An interquartile mean and its bootstrap interval, or a difference of two means and Welch's.

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
    metrics = _package("rliable.metrics")
    shaped = {name: _with_one_task(values) for name, values in scores.items()}
    curves = next(iter(shaped.values())).ndim == 3

    def aggregate(values: np.ndarray) -> np.ndarray:
        if values.ndim == 2:
            return np.array([metrics.aggregate_iqm(values)])
        return np.array([metrics.aggregate_iqm(values[..., index]) for index in range(values.shape[-1])])

    resamples = CURVE_RESAMPLES if curves else RESAMPLES
    points, intervals = _estimates(shaped, aggregate, resamples, seed)
    if curves:
        return {name: Estimate(points[name], intervals[name][0], intervals[name][1]) for name in scores}
    return {name: Estimate(points[name][0], intervals[name][0, 0], intervals[name][1, 0]) for name in scores}


def differences(
    scores: Mapping[str, np.ndarray], pairs: Iterable[tuple[str, str]], *, n_comparisons: int
) -> dict[tuple[str, str], Estimate]:
    """The mean of the first of each pair less that of the second, both ways round.

    The interval is Welch's, of two normal samples with deviations of their own. A bootstrap's interval is too narrow
    here: with five seeds, 13 layouts that do not differ and Bonferroni's correction it finds a difference in one study
    of five, not in one of twenty.

    Args:
        scores: by name, ``[seeds]``, two at least.
        pairs: of names.
        n_comparisons: made together: each interval is as wide as Bonferroni's correction asks.
    """
    stats, found = _package("scipy.stats"), {}
    for first, second in pairs:
        test = stats.ttest_ind(scores[first], scores[second], equal_var=False)
        interval = test.confidence_interval(1 - (1 - CONFIDENCE) / n_comparisons)
        value = float(scores[first].mean() - scores[second].mean())
        found[first, second] = Estimate(value, float(interval.low), float(interval.high))
        found[second, first] = Estimate(-value, -float(interval.high), -float(interval.low))
    return found


def _with_one_task(values: np.ndarray) -> np.ndarray:
    return values[:, None]


def _estimates(
    scores: dict[str, Any], function: Callable[..., np.ndarray], resamples: int, seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    library = _package("rliable.library")
    # rliable draws from numpy's global generator, whatever it is handed.
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        with warnings.catch_warnings():
            # It hands its resampling library a generator by an argument that this one will rename.
            warnings.filterwarnings("ignore", "random_state is deprecated", FutureWarning)
            return library.get_interval_estimates(scores, function, reps=resamples, confidence_interval_size=CONFIDENCE)
    finally:
        np.random.set_state(state)


def _package(name: str) -> Any:
    """A module that the extra ``study`` brings."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise UserError(f'{package} is missing ({error}): pip install "ctde-kit[study]"') from error
