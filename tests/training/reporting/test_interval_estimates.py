"""Interval estimates, with values worked out by hand, and the comparison that they are made of."""

from __future__ import annotations

import numpy as np
import pytest

from ctde_kit.errors import UserError
from ctde_kit.training.reporting import (
    Comparison,
    RunCurve,
    aggregate_scores,
    differences,
    interquartile_means,
    interval_estimates,
    performance_profiles,
    probabilities_of_improvement,
)


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interval_estimates, "RESAMPLES", 400)
    monkeypatch.setattr(interval_estimates, "CURVE_RESAMPLES", 50)


def test_interquartile_means_of_numbers_and_of_curves() -> None:
    # Of five the lowest and the highest are left out: a quarter of five, rounded down, at each end.
    found = interquartile_means({"a": np.array([[0.0], [1.0], [2.0], [6.0], [100.0]]), "b": np.full((5, 1), 4.0)})
    assert found["a"].value == pytest.approx(3.0)
    assert found["a"].low < 3.0 < found["a"].high
    assert (found["b"].low, found["b"].value, found["b"].high) == (4.0, 4.0, 4.0)
    curve = interquartile_means(
        {"a": np.array([[0.0, 5.0], [1.0, 5.0], [2.0, 5.0], [6.0, 5.0], [100.0, 5.0]])[:, None]}
    )["a"]
    assert curve.value.tolist() == pytest.approx([3.0, 5.0])
    assert curve.low[0] < 3.0 < curve.high[0]
    assert (curve.low[1], curve.high[1]) == (5.0, 5.0)


def test_the_same_scores_give_the_same_intervals_and_leave_the_generator_alone() -> None:
    scores = {"a": np.random.default_rng(0).normal(size=(7, 1))}
    before = np.random.get_state()[1].tolist()
    first, second = interquartile_means(scores)["a"], interquartile_means(scores)["a"]
    assert (first.low, first.high) == (second.low, second.high)
    assert interquartile_means(scores, seed=1)["a"].low != first.low
    assert np.random.get_state()[1].tolist() == before


def test_differences_are_welchs() -> None:
    # Means 3 and 7, variances 2.5 and 10 of five each: Welch's t has 5.88 degrees of freedom, 97.5 % of it below 2.459.
    a, b = np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([3.0, 5.0, 7.0, 9.0, 11.0])
    found = differences({"a": a, "b": b}, [("a", "b")], n_comparisons=1)
    half = 2.459 * np.sqrt(2.5 / 5 + 10 / 5)
    assert found["a", "b"].value == pytest.approx(-4.0)
    assert found["a", "b"].low == pytest.approx(-4.0 - half, abs=2e-3)
    assert found["a", "b"].high == pytest.approx(-4.0 + half, abs=2e-3)
    assert (found["b", "a"].value, found["b", "a"].low) == (4.0, pytest.approx(4.0 - half, abs=2e-3))
    assert found["a", "b"].beyond_noise
    wide = differences({"a": a, "b": b}, [("a", "b")], n_comparisons=20)["a", "b"]
    assert wide.low < found["a", "b"].low
    assert not wide.beyond_noise


def test_layouts_that_do_not_differ_are_seldom_found_to_differ() -> None:
    generator = np.random.default_rng(0)
    names = [str(number) for number in range(13)]
    pairs = [("0", name) for name in names[1:]]
    wrong = 0
    for _ in range(150):
        found = differences({name: generator.normal(size=5) for name in names}, pairs, n_comparisons=len(pairs))
        wrong += any(estimate.beyond_noise for estimate in found.values())
    assert wrong < 20  # one of twenty studies is 7.5


def test_curves_have_rliables_interquartile_mean_at_each_point() -> None:
    from rliable import metrics

    scores = np.random.default_rng(0).normal(size=(6, 3, 4))
    found = interquartile_means({"a": scores})["a"]
    assert found.value.tolist() == pytest.approx([metrics.aggregate_iqm(scores[..., point]) for point in range(4)])
    for n_seeds in range(1, 9):
        points = scores.reshape(-1, 1)[:n_seeds]
        assert interquartile_means({"a": points})["a"].value == pytest.approx(metrics.aggregate_iqm(points))
    assert (found.low <= found.value).all()
    assert (found.value <= found.high).all()


def test_aggregates_profiles_and_improvement_by_hand() -> None:
    from rliable import metrics

    scores = {"a": np.array([[0.2, 0.6], [0.4, 1.0]]), "b": np.array([[0.3, 0.5], [0.3, 0.5]])}
    found = aggregate_scores(scores)["a"]
    assert [found[name].value for name in ("IQM", "median", "mean", "optimality gap")] == pytest.approx(
        [0.5, 0.55, 0.55, 0.45]
    )
    assert performance_profiles(scores, np.array([0.1, 0.4, 0.7]))["a"].value.tolist() == [1.0, 0.5, 0.25]
    # Task one: 0.2 < 0.3 < 0.4, a half; task two: both are better.
    assert probabilities_of_improvement(scores)["a", "b"].value == pytest.approx(0.75)
    assert probabilities_of_improvement({"a": scores["a"]}) == {}
    drawn = {name: np.random.default_rng(number).integers(0, 4, (5, 3)) / 3 for number, name in enumerate("ab")}
    expected = metrics.probability_of_improvement(drawn["a"], drawn["b"])
    assert probabilities_of_improvement(drawn)["a", "b"].value == pytest.approx(expected)


def curve(task: str, label: str, seed: int, *returns: float) -> RunCurve:
    frames = np.arange(1, len(returns) + 1) * 100
    return RunCurve(task, label, seed, frames, tuple((value,) for value in returns), seconds=frames / 10)


def test_a_label_counts_with_all_seeds_that_it_has_on_every_task() -> None:
    runs = [curve("s", "a", seed, 0.0, 10.0) for seed in (0, 1, 2)] + [
        curve("t", "a", seed, 2.0, 4.0) for seed in (1, 0)
    ]
    runs += [curve(task, "b", 0, 2.0, 4.0) for task in "st"] + [curve("s", "c", 0, 0.0, 5.0)]
    comparison = Comparison(runs)
    assert comparison.complete_labels == ["a", "b"]
    assert comparison.final_scores()["a"].tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert comparison.final_scores()["b"].tolist() == [[0.4, 1.0]]
    assert [(run.task, run.label, run.seed) for run in comparison.left_out] == [("s", "a", 2)]
    assert comparison.bounds == {"s": (0.0, 10.0), "t": (2.0, 4.0)}
    # Half of the frames is the first evaluation; three quarters lie between both.
    assert comparison.curves_over_tasks("a", np.array([0.5, 0.75]))[0].tolist() == [[0.0, 0.5], [0.0, 0.5]]
    assert Comparison(runs, {"t": (0.0, 8.0)}).final_scores()["a"][0].tolist() == [1.0, 0.5]
    with pytest.raises(UserError, match="c on s, seed 0: it is there twice"):
        Comparison([*runs, curve("s", "c", 0, 1.0)])
    with pytest.raises(UserError, match="there are no runs to compare"):
        Comparison([])


def test_more_seeds_of_one_label_do_not_drop_those_of_another() -> None:
    finals = {"a": (0.0, 1.0, 1.0, 1.0), "b": (0.5,)}
    runs = [curve("s", label, seed, 0.0, value) for label in finals for seed, value in enumerate(finals[label])]
    scores = Comparison(runs).final_scores()
    assert {label: found.flatten().tolist() for label, found in scores.items()} == {
        label: [*values] for label, values in finals.items()
    }
    assert aggregate_scores(scores)["a"]["IQM"].value == 1.0
    assert probabilities_of_improvement(scores)["a", "b"].value == 0.75


def test_a_task_on_which_all_is_equal_does_not_count_over_tasks() -> None:
    runs = [curve(task, "a", 0, *values) for task, values in {"s": (3.0, 3.0), "t": (0.0, 4.0)}.items()]
    runs.append(curve("t", "b", 0, 0.0, 2.0))
    comparison = Comparison(runs)
    assert comparison.counted_tasks == ["t"]
    assert {label: found.tolist() for label, found in comparison.final_scores().items()} == {"a": [[1.0]], "b": [[0.5]]}
    assert Comparison(runs[:1]).final_scores() == {}
    assert Comparison(runs[:1], {"s": (0.0, 6.0)}).final_scores()["a"].tolist() == [[0.5]]


def test_each_label_is_drawn_to_its_own_end() -> None:
    comparison = Comparison([curve("s", "a", 0, 0.0, 1.0, 2.0), curve("s", "b", 0, 0.0, 1.0)])
    assert comparison.frame_grid("s", "a")[[0, -1]].tolist() == [100.0, 300.0]
    assert comparison.frame_grid("s", "b")[[0, -1]].tolist() == [100.0, 200.0]
    assert comparison.share_grid("a")[[0, -1]].tolist() == pytest.approx([1 / 3, 1.0])
    assert comparison.share_grid("b")[[0, -1]].tolist() == pytest.approx([1 / 3, 2 / 3])
    assert comparison.curves_over_tasks("b", comparison.share_grid("b"))[0, 0, -1] == pytest.approx(0.5)


def test_times_end_with_the_slowest_run_of_a_label() -> None:
    slow = curve("s", "a", 0, 0.0, 1.0, 2.0)
    # A fast run stays at what it reached until the slowest has ended.
    fast = RunCurve("s", "a", 1, np.array([100, 200]), ((0.0,), (5.0,)), np.array([2.0, 4.0]))
    for runs in ([slow], [slow, fast]):
        grid = Comparison(runs).second_grid("s", "a")
        assert grid is not None
        assert grid[[0, -1]].tolist() == [10.0, 30.0]
    assert fast.at_seconds(grid)[-1] == 5.0


def test_a_band_of_runs_on_straight_lines_is_straight() -> None:
    # Between two evaluations a mean of runs is linear, and so is each resample's, if it has the same runs everywhere.
    ends = np.random.default_rng(0).normal(size=3)
    curves = np.linspace(0, ends, 21, axis=-1)[:, None]
    band = interquartile_means({"a": curves})["a"]
    for edge in (band.low, band.high):
        assert np.diff(edge, 2) == pytest.approx(0.0, abs=1e-9)


def test_no_interval_below_three_seeds() -> None:
    two, three = np.array([[0.2], [0.4]]), np.array([[0.2], [0.4], [0.6]])
    assert interquartile_means({"a": two})["a"].text() == "0.300"
    assert interquartile_means({"a": three})["a"].text().startswith("0.400 (0.")
    assert not interquartile_means({"a": np.array([[[0.2, 0.4]]])})["a"].has_interval
    assert not aggregate_scores({"a": two})["a"]["mean"].has_interval
    found = probabilities_of_improvement({"a": three, "b": two, "c": three})
    assert [pair for pair, estimate in found.items() if estimate.has_interval] == [("a", "c")]
