"""The figures of a comparison of runs, as PNG files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict

import numpy as np

from ctde_kit.training.reporting.figures import new_figure, short_numbers
from ctde_kit.training.reporting.interval_estimates import Estimate, interquartile_means
from ctde_kit.training.reporting.run_curves import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Dash: TypeAlias = Literal["-", "--", "-.", ":"]
# Okabe and Ito's colors, which people with any color vision can tell apart; then matplotlib's.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C564B", "#7F7F7F", "#BCBD22")
# Curves that lie on each other, such as those of runs that all reach the best return, remain visible.
DASHES: tuple[Dash, ...] = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^")
MARK_EVERY = 10
DPI = 130
COLUMNS = 3


class Style(TypedDict):
    """How a label's line is drawn, as matplotlib's ``plot`` takes it."""

    color: str
    linestyle: Dash
    marker: str
    linewidth: float
    markersize: float


def label_styles(labels: Sequence[str]) -> dict[str, Style]:
    """A style for each label, the same in all figures of a page; no two of 60 labels are alike."""
    return {
        label: Style(
            color=COLORS[index % len(COLORS)],
            linestyle=DASHES[index % len(DASHES)],
            marker=MARKERS[index % len(MARKERS)],
            linewidth=1.6,
            markersize=4.0,
        )
        for index, label in enumerate(labels)
    }


def plot_aggregates(
    aggregates: Mapping[str, Mapping[str, Estimate]], path: Path, page_labels: Sequence[str] | None = None
) -> Path:
    """A panel for each aggregate, in it an interval for each label. Returns ``path``.

    Args:
        aggregates: by label, as ``aggregate_scores`` gives them.
        path: of the file; its directory exists.
        page_labels: all labels of the page, which share out the colors; ``None`` for those of ``aggregates``.

    >>> from pathlib import Path
    >>> import tempfile
    >>> import numpy as np
    >>> from ctde_kit.training.reporting import aggregate_scores, plot_aggregates
    >>> scores = {"qmix": np.array([[0.1, 0.9], [0.5, 1.0]]), "vdn": np.array([[0.2, 0.3], [0.1, 0.6]])}
    >>> found = aggregate_scores(scores)
    >>> plot_aggregates(found, Path(tempfile.mkdtemp()) / "aggregates.png").name
    'aggregates.png'
    """
    labels, styles = list(aggregates), label_styles(page_labels or list(aggregates))
    names = list(next(iter(aggregates.values())))
    figure, axes = _figure(len(names), 2.9, 0.9 + 0.42 * len(labels), columns=len(names))
    for axis, name in zip(axes, names, strict=True):
        for position, label in enumerate(labels):
            _interval(axis, position, aggregates[label][name], styles[label]["color"])
        axis.set_title(f"{name}\n({'lower' if 'gap' in name else 'higher'} is better)", fontsize=10)
        axis.set_yticks(range(len(labels)), labels if axis is axes[0] else [])
        axis.set_ylim(len(labels) - 0.5, -0.5)
        axis.grid(axis="x", alpha=0.3)
    return _saved(figure, path, "normalized return")


def plot_improvement(found: Mapping[tuple[str, str], Estimate], path: Path) -> Path:
    """For each pair the probability that the first one's run is better. Returns ``path``.

    >>> from pathlib import Path
    >>> import tempfile
    >>> from ctde_kit.training.reporting import Estimate, plot_improvement
    >>> plot_improvement({("qmix", "vdn"): Estimate(0.8, 0.6, 0.9)}, Path(tempfile.mkdtemp()) / "improvement.png").name
    'improvement.png'
    """
    figure, (axis,) = _figure(1, 6.5, 1.0 + 0.4 * len(found))
    for position, estimate in enumerate(found.values()):
        _interval(axis, position, estimate, COLORS[0])
    axis.axvline(0.5, color="0.4", linewidth=1, linestyle="--")
    axis.set_xlim(-0.02, 1.02)
    axis.set_ylim(len(found) - 0.5, -0.5)
    axis.set_yticks(range(len(found)), [f"{first} > {second}" for first, second in found])
    axis.grid(axis="x", alpha=0.3)
    return _saved(figure, path, "probability of improvement")


def plot_profiles(
    profiles: Mapping[str, Estimate], thresholds: np.ndarray, path: Path, page_labels: Sequence[str] | None = None
) -> Path:
    """The share of runs above each normalized return, a line for each label. Returns ``path``.

    Args:
        profiles: by label, as ``performance_profiles`` gives them.
        thresholds: ``[F]``, the normalized returns.
        path: of the file; its directory exists.
        page_labels: all labels of the page, which share out the colors; ``None`` for those of ``profiles``.

    >>> from pathlib import Path
    >>> import tempfile
    >>> import numpy as np
    >>> from ctde_kit.training.reporting import performance_profiles, plot_profiles
    >>> thresholds = np.linspace(0, 1, 11)
    >>> profiles = performance_profiles({"qmix": np.array([[0.2], [0.6], [0.9]])}, thresholds)
    >>> plot_profiles(profiles, thresholds, Path(tempfile.mkdtemp()) / "profiles.png").name
    'profiles.png'
    """
    figure, (axis,) = _figure(1, 6.0, 3.6)
    _bands(axis, thresholds, profiles, label_styles(page_labels or list(profiles)))
    axis.set_ylim(-0.03, 1.03)
    axis.set_ylabel("share of runs above")
    axis.legend(frameon=False, fontsize=9)
    return _saved(figure, path, "normalized return")


def plot_sample_efficiency(comparison: Comparison, path: Path) -> Path:
    """The interquartile mean of the normalized return over frames, over all tasks. Returns ``path``.

    >>> from pathlib import Path
    >>> import tempfile
    >>> import numpy as np
    >>> from ctde_kit.training.reporting import Comparison, RunCurve, plot_sample_efficiency
    >>> frames = np.array([600, 1200])
    >>> curves = [RunCurve("t", "a", seed, frames, ((0.0,), (0.5 + seed,))) for seed in (0, 1)]
    >>> plot_sample_efficiency(Comparison(curves), Path(tempfile.mkdtemp()) / "efficiency.png").name
    'efficiency.png'
    """
    last = {comparison.last_frames(task) for task in comparison.counted_tasks}
    figure, (axis,) = _figure(1, 6.0, 3.6)
    scale = last.pop() if len(last) == 1 else 1.0
    styles = label_styles(comparison.labels)
    for label in comparison.complete_labels:
        shares = comparison.share_grid(label)
        curves = {label: comparison.curves_over_tasks(label, shares)}
        _bands(axis, shares * scale, interquartile_means(curves), styles)
    if scale > 1:
        short_numbers(axis)
    axis.set_ylabel("normalized return, IQM")
    axis.legend(frameon=False, fontsize=9)
    return _saved(figure, path, "frames" if scale > 1 else "share of each task's frames")


def plot_tasks(comparison: Comparison, path: Path) -> Path:
    """For each task the interquartile mean of the return over frames, and below it over minutes. Returns ``path``.

    Where no run has kept its seconds, only that over frames is drawn.

    >>> from pathlib import Path
    >>> import tempfile
    >>> import numpy as np
    >>> from ctde_kit.training.reporting import Comparison, RunCurve, plot_tasks
    >>> frames, seconds = np.array([600, 1200]), np.array([3.0, 6.0])
    >>> curves = [RunCurve("t", "a", seed, frames, ((0.0,), (0.5,)), seconds) for seed in (0, 1)]
    >>> plot_tasks(Comparison(curves), Path(tempfile.mkdtemp()) / "tasks.png").name
    'tasks.png'
    """
    from matplotlib.lines import Line2D

    styles = label_styles(comparison.labels)
    columns = min(COLUMNS, len(comparison.tasks))
    bands = -(-len(comparison.tasks) // columns)
    x_labels = ["frames", "minutes"] if any(curve.seconds is not None for curve in comparison.curves) else ["frames"]
    rows = len(x_labels)
    figure, axes = _figure(rows * bands * columns, 4.0, 2.9, columns=columns)
    for index, task in enumerate(comparison.tasks):
        band, column = divmod(index, columns)
        panels = axes[rows * band * columns + column :: columns][:rows]
        panels[0].set_title(task, fontsize=10)
        _task_panels(comparison, task, panels, styles)
        for panel, x_label in zip(panels, x_labels, strict=True):
            panel.set_xlabel(x_label)
            if column == 0:
                panel.set_ylabel("return, IQM")
    for axis in axes:
        axis.set_visible(axis.has_data())
    handles = [Line2D([], [], **styles[label], label=label) for label in comparison.labels]
    figure.legend(
        handles=handles, loc="outside upper center", ncols=_columns(comparison, figure), frameon=False, fontsize=9
    )
    return _saved(figure, path)


def _columns(comparison: Comparison, figure: Figure) -> int:
    """How many labels stand side by side above a figure."""
    inches = 0.8 + 0.08 * max(map(len, comparison.labels))
    return max(1, min(len(comparison.labels), 6, int(figure.get_figwidth() / inches)))


def _task_panels(comparison: Comparison, task: str, panels: Sequence[Axes], styles: Mapping[str, Style]) -> None:
    for label in [label for label in comparison.labels if comparison.of(task, label)]:
        curves, grid = comparison.of(task, label), comparison.frame_grid(task, label)
        values = np.stack([curve.at(grid) for curve in curves])[:, None]
        _bands(panels[0], grid, interquartile_means({label: values}), styles)
        times = comparison.second_grid(task, label)
        if times is not None:
            values = np.stack([curve.at_seconds(times) for curve in curves])[:, None]
            _bands(panels[1], times / 60, interquartile_means({label: values}), styles)
    short_numbers(panels[0])


def _bands(axis: Axes, x: np.ndarray, estimates: Mapping[str, Estimate], styles: Mapping[str, Style]) -> None:
    for label, estimate in estimates.items():
        # Each label's markers begin elsewhere, so that none covers another's.
        begin = MARK_EVERY * list(styles).index(label) // len(styles)
        axis.plot(x, estimate.value, label=label, markevery=(begin, MARK_EVERY), **styles[label])
        axis.fill_between(x, estimate.low, estimate.high, color=styles[label]["color"], alpha=0.18, linewidth=0)
    axis.grid(alpha=0.3)


def _interval(axis: Axes, position: int, estimate: Estimate, color: str) -> None:
    if estimate.has_interval:
        width = max(float(estimate.high - estimate.low), 1e-3)
        axis.barh(position, width, left=float(estimate.low), height=0.55, color=color, alpha=0.45, linewidth=0)
    axis.use_sticky_edges = False
    axis.plot([float(estimate.value)] * 2, [position - 0.275, position + 0.275], color=color, linewidth=2.2)


def _figure(panels: int, width: float, height: float, columns: int = COLUMNS) -> tuple[Figure, list[Axes]]:
    columns = min(columns, panels)
    rows = -(-panels // columns)
    figure = new_figure(width * columns, height * rows)
    return figure, list(figure.subplots(rows, columns, squeeze=False).flatten())


def _saved(figure: Figure, path: Path, xlabel: str = "") -> Path:
    if len(figure.axes) == 1:
        figure.axes[0].set_xlabel(xlabel)
    elif xlabel:
        figure.supxlabel(xlabel, fontsize=10)
    figure.savefig(path, dpi=DPI, bbox_inches="tight")
    return path
