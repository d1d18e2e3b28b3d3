"""Learning curves of a run as PNG files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ctde_kit.training.reporting.figures import new_figure

DIAGNOSTICS = ("approx_kl", "entropy", "explained_variance")
Rows = Sequence[dict[str, float]]


def plot_run(rows: Rows, directory: Path, title: str) -> list[Path]:
    """Write ``return.png`` (training and evaluation returns) and ``losses.png`` over frames; returns their paths.

    Args:
        rows: the rows of ``metrics.csv``.
        directory: where the files are written; it exists.
        title: of both figures.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from ctde_kit.training.reporting import plot_run
    >>> rows = [{"frames": frames, "eval/return_mean": frames / 100, "train/loss_value": 0.5} for frames in (100, 200)]
    >>> [path.name for path in plot_run(rows, Path(tempfile.mkdtemp()), "mappo on navigation")]
    ['return.png', 'losses.png']
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    returns = shown_returns(names)
    losses = [name for name in names if "loss_" in name or name.endswith(DIAGNOSTICS)]
    paths = []
    if returns:
        paths.append(_plot(rows, [returns], directory / "return.png", title, "episode return, mean over agents"))
    if losses:
        paths.append(_plot(rows, [[name] for name in losses], directory / "losses.png", title, None))
    return paths


def shown_returns(names: Iterable[str]) -> list[str]:
    """The names of the mean returns to show.

    Returns of single groups in an evaluation are left out where it has one of all agents together.

    >>> from ctde_kit.training.reporting import shown_returns
    >>> shown_returns(["frames", "eval/return_mean", "eval/agents/return_mean", "train/return_mean"])
    ['eval/return_mean', 'train/return_mean']
    """
    returns = [name for name in names if name.endswith("return_mean")]
    together = [prefix for prefix in ("eval/", "absolute/") if f"{prefix}return_mean" in returns]
    return [name for name in returns if name.count("/") == 1 or not name.startswith(tuple(together))]


def _plot(rows: Rows, panels: list[list[str]], path: Path, title: str, ylabel: str | None) -> Path:
    n_columns = min(3, len(panels))
    n_rows = -(-len(panels) // n_columns)
    size = (7.0, 4.2) if len(panels) == 1 else (4.2 * n_columns, 2.8 * n_rows)
    figure = new_figure(*size)
    axes = figure.subplots(n_rows, n_columns, squeeze=False).flatten()
    for axis, names in zip(axes, panels, strict=False):
        for name in names:
            points = [(row["frames"], row[name]) for row in rows if name in row]
            marker = "o" if name.startswith("eval") else None
            axis.plot(*zip(*points, strict=True), label=name, marker=marker, markersize=3, linewidth=1.5)
        axis.grid(alpha=0.3)
        axis.set_xlabel("frames")
        if len(names) > 1 or ylabel:
            axis.legend(frameon=False)
            axis.set_ylabel(ylabel or "")
        else:
            axis.set_title(names[0], fontsize=10)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    return path
