"""Heatmaps of a cross-play table as a PNG file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ctde_kit.training.pairings import CrossPlay
from ctde_kit.training.reporting.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Characters per line of a label.
LABEL_WIDTH = 14
# With more columns than this the two heatmaps are placed below each other.
MOST_COLUMNS_SIDE_BY_SIDE = 5
# Cells up to this share of the color range are labeled in white.
DARK = 0.55


def plot_cross_play(table: CrossPlay, path: Path, title: str) -> Path:
    """Write a PNG with one heatmap per group: its return in every pairing, summed over agents. Returns ``path``.

    Args:
        table: the returns of all pairings of two groups.
        path: of the file; its directory exists.
        title: of the figure.

    >>> import tempfile
    >>> from pathlib import Path
    >>> import torch
    >>> from ctde_kit.training import CrossPlay
    >>> from ctde_kit.training.reporting import plot_cross_play
    >>> returns = {"adversary": torch.rand(2, 1, 5, 3), "agent": torch.rand(2, 1, 5, 1)}
    >>> table = CrossPlay({"adversary": ["chase", "random"], "agent": ["random"]}, returns)
    >>> plot_cross_play(table, Path(tempfile.mkdtemp()) / "returns.png", "simple_tag").name
    'returns.png'
    """
    groups = list(table.labels)
    rows, columns = (table.labels[group] for group in groups)
    stacked = len(columns) > MOST_COLUMNS_SIDE_BY_SIDE
    width, height = 1.6 + 1.05 * len(columns), 1.0 + 0.62 * len(rows)
    size = (width + 0.8, 2 * height + 1.2) if stacked else (2 * width, height + 1.0)
    figure = new_figure(max(size[0], 7.2), max(size[1], 2.9))
    panels = figure.subplots(2, 1) if stacked else figure.subplots(1, 2)
    for axis, group, outer in zip(panels, groups, (True, False), strict=True):
        _panel(axis, table.return_sum(group).numpy())
        axis.set_title(f"return of {group}, summed", fontsize=10)
        labels_rows, labels_columns = outer or stacked, not (outer and stacked)
        axis.set_xticks(range(len(columns)), [_wrapped(label) if labels_columns else "" for label in columns])
        axis.set_yticks(range(len(rows)), [_wrapped(label) if labels_rows else "" for label in rows])
        axis.set_xlabel(groups[1] if labels_columns else "")
        axis.set_ylabel(groups[0] if labels_rows else "")
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=130)
    return path


def _panel(axis: Axes, values: np.ndarray) -> None:
    axis.imshow(values, cmap="viridis", aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        shade = (value - values.min()) / max(values.max() - values.min(), 1e-9)
        axis.text(j, i, f"{value:.1f}", ha="center", va="center", color="white" if shade < DARK else "black")
    axis.tick_params(length=0, labelsize=8)
    axis.spines[:].set_visible(False)
    # White lines between the cells.
    axis.set_xticks(np.arange(values.shape[1] - 1) + 0.5, minor=True)
    axis.set_yticks(np.arange(values.shape[0] - 1) + 0.5, minor=True)
    axis.grid(which="minor", color="white", linewidth=2)
    axis.tick_params(which="minor", length=0)


def _wrapped(label: str) -> str:
    """The label wrapped into several lines, broken after dashes, underscores and spaces."""
    lines = [""]
    for word in re.findall(r"[^-_ ]*[-_ ]?", label):
        if len(lines[-1]) + len(word) > LABEL_WIDTH and lines[-1]:
            lines.append("")
        lines[-1] += word
    return "\n".join(lines)
