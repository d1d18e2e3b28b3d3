"""What the figures of a comparison show, read from the artists that are drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

from ctde_kit.training.reporting import Comparison, RunCurve, comparison_figures, interval_estimates
from ctde_kit.training.reporting.comparison_figures import plot_aggregates, plot_sample_efficiency, plot_tasks
from ctde_kit.training.reporting.interval_estimates import aggregate_scores


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, tmp_path) -> list[Figure]:
    """The figures that are written, in their order."""
    figures: list[Figure] = []

    def keep(figure: Figure, path, xlabel: str = ""):
        figures.append(figure)
        return path

    monkeypatch.setattr(comparison_figures, "_saved", keep)
    monkeypatch.setattr(interval_estimates, "RESAMPLES", 20)
    monkeypatch.setattr(interval_estimates, "CURVE_RESAMPLES", 20)
    return figures


def runs(label: str, n_evaluations: int, n_seeds: int = 1) -> list[RunCurve]:
    frames = 100 * np.arange(1, n_evaluations + 1)
    episodes = tuple((float(value),) for value in range(n_evaluations))
    return [RunCurve("t", label, seed, frames, episodes, frames / 10) for seed in range(n_seeds)]


def test_each_label_is_drawn_to_its_own_end(drawn: list[Figure], tmp_path) -> None:
    comparison = Comparison([*runs("a", 4), *runs("b", 2)])
    plot_tasks(comparison, tmp_path / "tasks.png")
    plot_sample_efficiency(comparison, tmp_path / "efficiency.png")
    for figure in drawn:
        ends = {str(line.get_label()): line.get_xdata()[-1] for line in figure.axes[0].lines}
        assert ends == pytest.approx({"a": 400.0, "b": 200.0})


def test_minutes_are_drawn_only_where_seconds_were_kept(drawn: list[Figure], tmp_path) -> None:
    timed, untimed = runs("a", 3), [replace(run, label="b", seconds=None) for run in runs("b", 3)]
    others = [replace(run, task="u") for run in (*timed, *untimed)]
    plot_tasks(Comparison([*timed, *untimed, *others]), tmp_path / "some.png")
    plot_tasks(Comparison([*untimed, *(replace(run, task="u") for run in untimed)]), tmp_path / "none.png")
    some, none = [[(axis.get_title(), axis.get_xlabel(), len(axis.lines)) for axis in f.axes] for f in drawn]
    assert some == [("t", "frames", 2), ("u", "frames", 2), ("", "minutes", 1), ("", "minutes", 1)]
    assert none == [("t", "frames", 1), ("u", "frames", 1)]


def test_curves_that_lie_on_each_other_remain_visible(drawn: list[Figure], tmp_path) -> None:
    plot_tasks(Comparison([*runs("a", 3), *runs("b", 3)]), tmp_path / "tasks.png")
    first, second = drawn[0].axes[0].lines
    assert first.get_linestyle() != second.get_linestyle()
    assert first.get_marker() != second.get_marker()
    assert first.get_markevery() != second.get_markevery()


def test_a_label_has_one_color_in_all_figures_of_a_page(drawn: list[Figure], tmp_path) -> None:
    aggregates = aggregate_scores({"b": np.array([[0.1], [0.2], [0.3]])})
    plot_aggregates(aggregates, tmp_path / "aggregates.png", ["a", "b"])
    plot_tasks(Comparison([*runs("a", 3), *runs("b", 3)]), tmp_path / "tasks.png")
    bar = drawn[0].axes[0].lines[0]
    curve = next(line for line in drawn[1].axes[0].lines if line.get_label() == "b")
    assert bar.get_color() == curve.get_color()


def test_one_seed_has_no_bar(drawn: list[Figure], tmp_path) -> None:
    scores = {"one": np.array([[0.5]]), "three": np.array([[0.1], [0.2], [0.3]])}
    plot_aggregates(aggregate_scores(scores), tmp_path / "aggregates.png")
    assert len(drawn[0].axes[0].patches) == 1


def test_shares_of_frames_are_written_as_shares(drawn: list[Figure], tmp_path) -> None:
    longer = [replace(run, task="longer") for run in runs("a", 4)]
    plot_sample_efficiency(Comparison([*runs("a", 2), *longer]), tmp_path / "efficiency.png")
    axis = drawn[0].axes[0]
    assert "m" not in axis.xaxis.get_major_formatter()(0.5)
