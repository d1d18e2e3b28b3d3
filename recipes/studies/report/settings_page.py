"""The page of ``ctde compare``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ctde_kit.recipes.studies.report.caveats import frame_caveats, run_caveats
from ctde_kit.recipes.studies.report.document import Block, Heading, Paragraph, Picture, Table, write_document
from ctde_kit.recipes.studies.report.page_parts import bullets, how_it_was_made, introduction, task_table
from ctde_kit.recipes.studies.report.sources import Found
from ctde_kit.training.distribution import interquartile_mean
from ctde_kit.training.reporting import (
    Comparison,
    Estimate,
    plot_improvement,
    plot_tasks,
    probabilities_of_improvement,
)

NAME = "compare"


class Written(NamedTuple):
    """A page that is written.

    Args:
        paths: of its files.
        tables: of each task.
        caveats: sentences on what the reader of the figures must know.
    """

    paths: list[Path]
    tables: dict[str, list[Table]]
    caveats: list[str]


def write_comparison(found: Found, output: Path, *, command: str) -> Written:
    """Write ``compare.html`` and ``compare.md`` with its pictures.

    Args:
        found: the runs, all of one task. Where groups compete, each group's return counts as a task of its own.
        output: the directory to write to; it is made if there is none.
        command: the command line that makes the page; the page shows it.
    """
    comparison = Comparison(found.curves)
    output.mkdir(parents=True, exist_ok=True)
    picture = plot_tasks(comparison, output / "curves.png")
    caption = "Return over frames and, where it was kept, below over minutes, evaluations included; bands over seeds."
    caveats = [*run_caveats(comparison, found), *frame_caveats(comparison)]
    blocks: list[Block] = [
        Heading(", ".join(comparison.labels), 1),
        Paragraph(introduction(comparison, "curve")),
        *bullets(caveats),
        Picture(picture.name, caption),
    ]
    tables: dict[str, list[Table]] = {}
    for task in comparison.tasks:
        tables[task] = [task_table(comparison, found, task)]
        blocks += [Heading(f"`{task}`"), *tables[task]]
        improvement = _improvement(comparison, task)
        if improvement:
            table, path = _improvement_table(improvement), output / _file_name(comparison.tasks, task)
            plot_improvement(improvement, path)
            blocks += [
                table,
                Picture(path.name, "Probability that a run of the first is better than one of the second."),
            ]
            tables[task].append(table)
    blocks += how_it_was_made(comparison, found, command)
    return Written(write_document(blocks, output, NAME), tables, caveats)


def _improvement(comparison: Comparison, task: str) -> dict[tuple[str, str], Estimate]:
    """For every two labels, the better one first: how probably its run is better; empty if there is only one label."""
    finals = {label: np.array([[curve.final] for curve in comparison.of(task, label)]) for label in comparison.labels}
    ranked = sorted(finals, key=lambda label: -interquartile_mean(finals[label].flatten()))
    return probabilities_of_improvement({label: finals[label] for label in ranked})


def _improvement_table(improvement: dict[tuple[str, str], Estimate]) -> Table:
    rows = [[first, second, estimate.text()] for (first, second), estimate in improvement.items()]
    return Table(["a run of", "is better than one of", "with probability"], rows)


def _file_name(tasks: Sequence[str], task: str) -> str:
    return "improvement.png" if len(tasks) == 1 else f"improvement_{tasks.index(task)}.png"
