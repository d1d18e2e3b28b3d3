"""The page of ``ctde report``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ctde_kit.errors import UserError
from ctde_kit.recipes.studies.report.caveats import caveats_over_tasks, frame_caveats, run_caveats
from ctde_kit.recipes.studies.report.document import (
    Block,
    Heading,
    Paragraph,
    Picture,
    Table,
    write_document,
)
from ctde_kit.recipes.studies.report.page_parts import bullets, how_it_was_made, introduction, named, task_table
from ctde_kit.recipes.studies.report.sources import Found
from ctde_kit.training.reporting import (
    Comparison,
    aggregate_scores,
    performance_profiles,
    plot_aggregates,
    plot_improvement,
    plot_profiles,
    plot_sample_efficiency,
    plot_tasks,
    probabilities_of_improvement,
    write_marl_eval,
)
from ctde_kit.training.reporting.interval_estimates import OPTIMALITY_GAP

NAME = "report"
RUNS_FILE = "marl_eval.json"
GAP_AT_HAND = "gap to the best run at hand"
THRESHOLDS = np.linspace(0, 1, 101)


def write_report(
    found: Found, output: Path, *, command: str, bounds: Mapping[str, tuple[float, float]] | None = None
) -> tuple[list[Path], list[str]]:
    """Write ``report.html``, ``report.md`` with its pictures, and ``marl_eval.json``.

    Args:
        found: the runs.
        output: a directory; it is made.
        command: that made the page, for the page.
        bounds: by task, the returns that count as 0 and 1; for other tasks those of the runs' benchmark, and where it
            has none they are taken from the runs.

    Returns:
        The paths of the files, and sentences on what the reader of the figures must know.

    Raises:
        UserError: where no run has ended, and for bounds of unknown tasks.
    """
    tasks = {curve.task for curve in found.curves}
    unknown = [task for task in bounds or {} if tasks and task not in tasks]
    if unknown:
        raise UserError(f"bounds.{unknown[0]}: no run is of this task; there are {', '.join(sorted(tasks))}")
    comparison = Comparison(found.curves, found.bounds(bounds or {}))
    output.mkdir(parents=True, exist_ok=True)
    note = f"All evaluations are in `{RUNS_FILE}`, in marl-eval's format, which this command reads, too."
    general, over_tasks = run_caveats(comparison, found), caveats_over_tasks(comparison)
    frames = frame_caveats(comparison)
    blocks = [
        Heading(f"{named(comparison.labels)} on {named(comparison.tasks)}", 1),
        Paragraph(introduction(comparison, "task and recipe")),
        *bullets(general),
        Heading("Over all tasks"),
        *bullets([*over_tasks, *frames]),
        *_over_tasks(comparison, output),
        *_by_task(comparison, found, output),
        *how_it_was_made(comparison, found, command, note),
    ]
    write_marl_eval(comparison.curves, output / RUNS_FILE)
    paths = [*write_document(blocks, output, NAME), output / RUNS_FILE]
    return paths, [*general, *over_tasks, *frames]


def _over_tasks(comparison: Comparison, output: Path) -> list[Block]:
    scores, labels = comparison.final_scores(), comparison.labels
    if not scores:
        return []
    aggregates = aggregate_scores(scores, gap=_gap(comparison))
    pictures = [
        Picture(
            plot_aggregates(aggregates, output / "aggregates.png", labels).name,
            "The final policy's normalized return over all tasks and seeds.",
        ),
        Picture(
            plot_sample_efficiency(comparison, output / "sample_efficiency.png").name,
            "How fast it is learned: normalized return over frames, each recipe as far as all of its runs went.",
        ),
        Picture(
            plot_profiles(performance_profiles(scores, THRESHOLDS), THRESHOLDS, output / "profiles.png", labels).name,
            "Performance profile: the share of all runs whose final normalized return is above a value.",
        ),
    ]
    improvement = probabilities_of_improvement(scores)
    if improvement:
        path = plot_improvement(improvement, output / "improvement.png")
        pictures.append(Picture(path.name, "Probability that a run of the first is better than one of the second."))
    names = list(next(iter(aggregates.values())))
    rows = [[label, *(found[name].text() for name in names)] for label, found in aggregates.items()]
    text = (
        "Returns are normalized for each task: 0 and 1 are the bounds that its table names. The "
        f"{_gap(comparison)} is how far runs stay below 1."
    )
    return [Paragraph(text), Table(["recipe", *names], rows), *pictures]


def _gap(comparison: Comparison) -> str:
    """What the mean distance to 1 is called: 1 is no optimum where it was taken from the runs."""
    return OPTIMALITY_GAP if {*comparison.counted_tasks} <= {*comparison.given} else GAP_AT_HAND


def _by_task(comparison: Comparison, found: Found, output: Path) -> list[Block]:
    picture = plot_tasks(comparison, output / "tasks.png")
    caption = (
        "Return over frames, each recipe as far as all of its runs went, and, where it was kept, below over minutes of "
        "wall-clock time, evaluations included."
    )
    blocks: list[Block] = [Heading("By task"), Picture(picture.name, caption)]
    for task in comparison.tasks:
        low, high = comparison.bounds[task]
        origin = "" if task in comparison.given else ", the lowest and the highest mean return at hand"
        counted = task in comparison.counted_tasks
        blocks += [
            Heading(f"`{task}`", 3),
            *([Paragraph(f"Normalized from {low:.3f} to {high:.3f}{origin}.")] if counted else []),
            task_table(comparison, found, task),
        ]
    return blocks
