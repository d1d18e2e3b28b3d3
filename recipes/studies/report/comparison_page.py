"""The page of ``ctde report``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ctde_kit.errors import UserError
from ctde_kit.recipes.studies.report.document import (
    Block,
    Heading,
    Paragraph,
    Picture,
    Table,
    write_document,
)
from ctde_kit.recipes.studies.report.page_parts import how_it_was_made, introduction, named, task_table
from ctde_kit.recipes.studies.report.sources import Found
from ctde_kit.training.reporting import (
    Comparison,
    Estimate,
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

NAME = "report"
RUNS_FILE = "marl_eval.json"
THRESHOLDS = np.linspace(0, 1, 101)


def write_report(
    found: Found, output: Path, *, command: str, bounds: Mapping[str, tuple[float, float]] | None = None
) -> list[Path]:
    """Write ``report.html``, ``report.md`` with its pictures, and ``marl_eval.json``; returns their paths.

    Args:
        found: the runs.
        output: a directory; it is made.
        command: that made the page, for the page.
        bounds: by task, the returns that count as 0 and 1; others are taken from the runs.

    Raises:
        UserError: where no run has ended, and for bounds of unknown tasks.
    """
    comparison = Comparison(found.curves, bounds)
    unknown = [task for task in bounds or {} if task not in comparison.tasks]
    if unknown:
        raise UserError(f"bounds.{unknown[0]}: no run is of this task; there are {', '.join(comparison.tasks)}")
    output.mkdir(parents=True, exist_ok=True)
    note = f"All evaluations are in `{RUNS_FILE}`, in marl-eval's format, which this command reads, too."
    blocks = [
        Heading(f"{named(comparison.labels)} on {named(comparison.tasks)}", 1),
        Paragraph(introduction(comparison, "task and recipe")),
        *_over_tasks(comparison, output),
        *_by_task(comparison, found, output),
        *how_it_was_made(comparison, found, command, note),
    ]
    write_marl_eval(comparison.curves, output / RUNS_FILE)
    return [*write_document(blocks, output, NAME), output / RUNS_FILE]


def _over_tasks(comparison: Comparison, output: Path) -> list[Block]:
    labels = comparison.complete_labels
    blocks: list[Block] = [Heading("Over all tasks")]
    left_out = [label for label in comparison.labels if label not in labels]
    if left_out:
        blocks.append(Paragraph(f"Left out here, for want of runs on every task: {', '.join(left_out)}."))
    if not labels:
        return blocks
    scores = comparison.final_scores()
    aggregates = aggregate_scores(scores)
    pictures = [
        Picture(
            plot_aggregates(aggregates, output / "aggregates.png").name,
            "The final policy's normalized return over all tasks and seeds.",
        ),
        Picture(
            plot_sample_efficiency(comparison, output / "sample_efficiency.png").name,
            "How fast it is learned: normalized return over frames.",
        ),
        Picture(
            plot_profiles(performance_profiles(scores, THRESHOLDS), THRESHOLDS, output / "profiles.png").name,
            "Performance profile: the share of all runs whose final normalized return is above a value.",
        ),
    ]
    improvement = probabilities_of_improvement({label: scores[label] for label in _ranked(aggregates)})
    if improvement:
        path = plot_improvement(improvement, output / "improvement.png")
        pictures.append(Picture(path.name, "Probability that a run of the first is better than one of the second."))
    names = list(next(iter(aggregates.values())))
    rows = [[label, *(aggregates[label][name].text() for name in names)] for label in _ranked(aggregates)]
    note = (
        f"Only the first {comparison.common_seeds} seeds of each recipe count, because not all have more."
        if _uneven(comparison)
        else ""
    )
    text = (
        "Returns are normalized for each task: 0 and 1 are the bounds that its table names. The optimality gap is how "
        f"far runs stay below 1. {note}"
    )
    return [*blocks, Paragraph(text.strip()), Table(["recipe", *names], rows), *pictures]


def _by_task(comparison: Comparison, found: Found, output: Path) -> list[Block]:
    picture = plot_tasks(comparison, output / "tasks.png")
    caption = "Return over frames, and below over minutes of wall-clock time, evaluations included."
    blocks: list[Block] = [Heading("By task"), Picture(picture.name, caption)]
    for task in comparison.tasks:
        low, high = comparison.bounds[task]
        blocks += [
            Heading(f"`{task}`", 3),
            Paragraph(f"Normalized from {low:.3f} to {high:.3f}."),
            task_table(comparison, found, task),
        ]
    return blocks


def _uneven(comparison: Comparison) -> bool:
    counts = {len(comparison.of(task, label)) for task in comparison.tasks for label in comparison.complete_labels}
    return len(counts) > 1


def _ranked(aggregates: Mapping[str, Mapping[str, Estimate]]) -> list[str]:
    return sorted(aggregates, key=lambda label: -aggregates[label]["IQM"].value)
