"""Interval estimates over seeds and tasks by rliable (Agarwal et al. 2021), and Welch's differences of means.

Scores are ``[seeds, tasks]``, those of curves ``[seeds, tasks, F]``. Seeds are resampled within each task.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TypeVar

import numpy as np

from ctde_kit.errors import UserError
from ctde_kit.training.distribution import interquartile_mean

CONFIDENCE = 0.95
# A bootstrap of fewer seeds has next to nothing to draw from: of one seed, its interval is a point.
MIN_SEEDS = 3
RESAMPLES = 2_000
CURVE_RESAMPLES = 1_000
AGGREGATES = {
    "median": "aggregate_median",
    "mean": "aggregate_mean",
}
OPTIMALITY_GAP = "optimality gap"
Scores = Mapping[str, np.ndarray]
Numbers = float | np.ndarray
Key = TypeVar("Key")


@dataclass(frozen=True)
class Estimate:
    """A number, or a curve of them, and its interval.

    Args:
        value: a number, or one for each point of a curve ``[F]``.
        low: lower end of the interval; NaN where there are too few seeds for one.
        high: upper end of the interval; NaN likewise.

    >>> from ctde_kit.training.reporting import Estimate
    >>> Estimate(0.5, 0.2, 0.8).beyond_noise, Estimate(0.5, -0.2, 1.2).beyond_noise
    (True, False)
    """

    value: Numbers
    low: Numbers
    high: Numbers

    @property
    def beyond_noise(self) -> bool:
        """The interval excludes 0."""
        return bool(self.low > 0 or self.high < 0)

    @property
    def has_interval(self) -> bool:
        """There were enough seeds for an interval."""
        return not np.isnan(self.low).any()

    def text(self) -> str:
        """``VALUE (LOW to HIGH)``, or ``VALUE`` alone where there is no interval."""
        interval = f" ({self.low:.3f} to {self.high:.3f})" if self.has_interval else ""
        return f"{self.value:.3f}{interval}"


def interquartile_means(scores: Scores, *, seed: int = 0) -> dict[str, Estimate]:
    """The interquartile mean over seeds and tasks of each entry, of curves at each point.

    A curve's interval takes the same resamples of its runs at every point. Below ``MIN_SEEDS`` there is no interval.

    Args:
        scores: by name, ``[seeds, tasks]`` or ``[seeds, tasks, F]``.
        seed: of the resampling.

    >>> import numpy as np
    >>> from ctde_kit.training.reporting import interquartile_means
    >>> float(interquartile_means({"qmix": np.array([[0.0], [1.0], [2.0], [9.0]])})["qmix"].value)
    1.5
    """
    if next(iter(scores.values())).ndim == 2:
        return {name: found["IQM"] for name, found in _aggregates(scores, {"IQM": _iqm}, seed).items()}

    found: dict[str, Estimate] = {}
    for name, curves in scores.items():
        n_seeds, n_tasks = curves.shape[:2]
        runs, tasks = np.repeat(np.arange(n_seeds)[:, None], n_tasks, axis=1), np.arange(n_tasks)

        def aggregate(drawn: np.ndarray, curves: np.ndarray = curves, tasks: np.ndarray = tasks) -> np.ndarray:
            return _iqm(curves[drawn, tasks])

        # What is drawn are runs: rliable would draw anew at every point of a curve.
        points, intervals = _resampled({name: runs}, aggregate, CURVE_RESAMPLES, seed)
        found[name] = Estimate(points[name], *intervals[name])
    return found


def aggregate_scores(scores: Scores, *, gap: str = OPTIMALITY_GAP, seed: int = 0) -> dict[str, dict[str, Estimate]]:
    """By name, the IQM, median, mean and optimality gap of normalized scores ``[seeds, tasks]``.

    Args:
        scores: by name; the names may have different numbers of seeds.
        gap: what the optimality gap is called, for scores whose 1 is no optimum.
        seed: of the resampling.

    >>> import numpy as np
    >>> from ctde_kit.training.reporting import aggregate_scores
    >>> found = aggregate_scores({"qmix": np.array([[0.0, 1.0], [0.5, 1.0]])})["qmix"]
    >>> {name: round(float(estimate.value), 3) for name, estimate in found.items()}
    {'IQM': 0.75, 'median': 0.625, 'mean': 0.625, 'optimality gap': 0.375}
    """
    metrics = _package("rliable.metrics")
    others = {name: getattr(metrics, function) for name, function in AGGREGATES.items()}
    return _aggregates(scores, {"IQM": _iqm, **others, gap: metrics.aggregate_optimality_gap}, seed)


def performance_profiles(scores: Scores, thresholds: np.ndarray, *, seed: int = 0) -> dict[str, Estimate]:
    """By name, the share of runs whose normalized score is above each threshold, over all tasks.

    >>> import numpy as np
    >>> from ctde_kit.training.reporting import performance_profiles
    >>> scores = {"qmix": np.array([[0.2], [0.6], [0.9]])}
    >>> performance_profiles(scores, np.array([0.0, 0.5, 1.0]))["qmix"].value.round(2).tolist()
    [1.0, 0.67, 0.0]
    """

    def profile(values: np.ndarray) -> np.ndarray:
        return (values[..., None] > thresholds).mean((0, 1))

    points, intervals = _resampled(scores, profile, CURVE_RESAMPLES, seed)
    return {name: Estimate(points[name], *intervals[name]) for name in scores}


def probabilities_of_improvement(scores: Scores, *, seed: int = 0) -> dict[tuple[str, str], Estimate]:
    """For each two names, how probably a run of the first is better than one of the second, averaged over tasks.

    >>> import numpy as np
    >>> from ctde_kit.training.reporting import probabilities_of_improvement
    >>> scores = {"qmix": np.array([[0.2], [0.6]]), "vdn": np.array([[0.1], [0.4]])}
    >>> float(probabilities_of_improvement(scores)["qmix", "vdn"].value)
    0.75
    """

    def better(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        # As rliable's `probability_of_improvement`, whose Mann-Whitney tests take a hundred times as long.
        difference = x[:, None] - y[None]
        return np.array([((difference > 0) + 0.5 * (difference == 0)).mean()])

    names = list(scores)
    pairs = {(a, b): (scores[a], scores[b]) for i, a in enumerate(names) for b in names[i + 1 :]}
    if not pairs:
        return {}
    points, intervals = _resampled(pairs, better, CURVE_RESAMPLES, seed)
    return {pair: Estimate(points[pair][0], intervals[pair][0, 0], intervals[pair][1, 0]) for pair in pairs}


def differences(
    scores: Scores, pairs: Iterable[tuple[str, str]], *, n_comparisons: int
) -> dict[tuple[str, str], Estimate]:
    """For each pair the difference of the two means, in both directions: first minus second, and second minus first.

    The interval is Welch's, of two normal samples with different deviations. A bootstrap's interval would be too
    narrow: with five seeds, 13 layouts that do not differ and Bonferroni's correction it finds a difference in one
    study of five, instead of one in twenty.

    Args:
        scores: by name, ``[seeds]``, two at least.
        pairs: of names.
        n_comparisons: how many comparisons are made together; Bonferroni's correction widens each interval by it.

    >>> import numpy as np
    >>> from ctde_kit.training.reporting import differences
    >>> scores = {"a": np.array([1.0, 2.0, 3.0]), "b": np.array([7.0, 8.0, 9.0])}
    >>> difference = differences(scores, [("a", "b")], n_comparisons=1)["a", "b"]
    >>> difference.value, difference.beyond_noise
    (-6.0, True)
    """
    stats, found = _package("scipy.stats"), {}
    for first, second in pairs:
        test = stats.ttest_ind(scores[first], scores[second], equal_var=False)
        interval = test.confidence_interval(1 - (1 - CONFIDENCE) / n_comparisons)
        value = float(scores[first].mean() - scores[second].mean())
        found[first, second] = Estimate(value, float(interval.low), float(interval.high))
        found[second, first] = Estimate(-value, -float(interval.high), -float(interval.low))
    return found


def _iqm(scores: np.ndarray) -> np.ndarray:
    """The interquartile mean of ``[seeds, tasks, *F]`` over seeds and tasks, at all points at once."""
    return interquartile_mean(scores.reshape(-1, *scores.shape[2:]))


def _aggregates(
    scores: Scores, functions: Mapping[str, Callable[[np.ndarray], Numbers]], seed: int
) -> dict[str, dict[str, Estimate]]:
    def aggregate(values: np.ndarray) -> np.ndarray:
        return np.array([function(values) for function in functions.values()])

    points, intervals = _resampled(scores, aggregate, RESAMPLES, seed)
    return {
        name: {
            metric: Estimate(points[name][index], intervals[name][0, index], intervals[name][1, index])
            for index, metric in enumerate(functions)
        }
        for name in scores
    }


def _resampled(
    scores: Mapping[Key, np.ndarray] | Mapping[Key, tuple[np.ndarray, ...]],
    function: Callable[..., np.ndarray],
    resamples: int,
    seed: int,
) -> tuple[dict[Key, np.ndarray], dict[Key, np.ndarray]]:
    """What ``function`` gives for each entry of ``scores``, and its intervals ``[2, ...]``.

    The intervals of entries with fewer than ``MIN_SEEDS`` seeds are NaN.
    """
    few = [key for key, entry in scores.items() if _n_seeds(entry) < MIN_SEEDS]
    enough = {key: entry for key, entry in scores.items() if key not in few}
    library = _package("rliable.library")
    # rliable draws from numpy's global generator, whatever it is handed.
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        with warnings.catch_warnings():
            # It hands its resampling library a generator by an argument that the library is going to rename.
            warnings.filterwarnings("ignore", "random_state is deprecated", FutureWarning)
            points, intervals = library.get_interval_estimates(
                enough, function, reps=resamples, confidence_interval_size=CONFIDENCE
            )
    finally:
        np.random.set_state(state)
    for key in few:
        entry = scores[key]
        points[key] = function(entry) if isinstance(entry, np.ndarray) else function(*entry)
        intervals[key] = np.full((2, *points[key].shape), np.nan)
    return points, intervals


def _n_seeds(entry: np.ndarray | tuple[np.ndarray, ...]) -> int:
    return len(entry) if isinstance(entry, np.ndarray) else min(map(len, entry))


def _package(name: str) -> ModuleType:
    """A module that the extra ``report`` brings."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise UserError(f'{package} is missing ({error}): pip install "ctde-kit[report]"') from error
