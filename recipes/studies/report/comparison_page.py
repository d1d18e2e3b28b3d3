"""The page of ``ctde report``."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ctde_kit.errors import UserError
from ctde_kit.recipes.studies.report.document import (
    Block,
    Bullets,
    Code,
    Heading,
    Paragraph,
    Picture,
    Table,
    write_document,
)
from ctde_kit.recipes.studies.report.sources import Found
from ctde_kit.training.reporting import (
    Comparison,
    Estimate,
    RunCurve,
    aggregate_scores,
    interquartile_means,
    performance_profiles,
    plot_aggregates,
    plot_improvement,
    plot_profiles,
    plot_sample_efficiency,
    plot_tasks,
    probabilities_of_improvement,
    write_marl_eval,
)
from ctde_kit.training.reporting.interval_estimates import CONFIDENCE

NAME = "report"
RUNS_FILE = "marl_eval.json"
THRESHOLDS = np.linspace(0, 1, 101)


def write_report(
    found: Found, output: Path, *, command: str, bounds: Mapping[str, tuple[float, float]] | None = None
) -> list[Path]:
    """``report.html``, ``report.md`` with its pictures, and ``marl_eval.json``, all runs in marl-eval's format.

    Args:
        found: the runs.
        output: a directory; it is made.
        command: that made the page, for the page.
        bounds: by task, the returns that count as 0 and 1; others are taken from the runs.

    Raises:
        UserError: where no run has ended, and for bounds of tasks that there are not.
    """
    comparison = Comparison(found.curves, bounds)
    unknown = [task for task in bounds or {} if task not in comparison.tasks]
    if unknown:
        raise UserError(f"bounds.{unknown[0]}: no run is of this task; there are {', '.join(comparison.tasks)}")
    output.mkdir(parents=True, exist_ok=True)
    blocks = [
        Heading(f"{_named(comparison.labels)} on {_named(comparison.tasks)}", 1),
        Paragraph(_introduction(comparison)),
        *_over_tasks(comparison, output),
        *_by_task(comparison, found, output),
        *_how(comparison, found, command),
    ]
    write_marl_eval(comparison.curves, output / RUNS_FILE)
    return [*write_document(blocks, output, NAME), output / RUNS_FILE]


def _introduction(comparison: Comparison) -> str:
    counts = {len(comparison.of(task, label)) for task in comparison.tasks for label in comparison.labels} - {0}
    seeds = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    plural = "seed" if counts == {1} else "seeds"
    return (
        f"{len(comparison.curves)} runs, {seeds} {plural} per task and recipe. A return is the sum of rewards over an "
        "episode of the greedy policy, averaged over agents and episodes, on seeds that training never used. Figures "
        f"are interquartile means (IQM) over runs; in brackets, and as bands and bars, {CONFIDENCE:.0%} intervals of a "
        "bootstrap over seeds, stratified by task (Agarwal et al. 2021, `rliable`)."
    )


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
        pictures.append(Picture(path.name, "Probability of improvement: of a run of the first over one of the second."))
    names = list(next(iter(aggregates.values())))
    rows = [[label, *(aggregates[label][name].text() for name in names)] for label in _ranked(aggregates)]
    note = (
        f"The first {comparison.common_seeds} seeds of each are counted, as many as all have."
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
            _task_table(comparison, found, task),
        ]
    return blocks


def _task_table(comparison: Comparison, found: Found, task: str) -> Table:
    labels = [label for label in comparison.labels if comparison.of(task, label)]
    final = interquartile_means(
        {label: np.array([[curve.final] for curve in comparison.of(task, label)]) for label in labels}
    )
    with_absolute = any(curve.absolute is not None for curve in comparison.of(task))
    head = ["recipe", "final return, IQM", "each seed's final return", "frames", "minutes", "frames per second"]
    if with_absolute:
        head.insert(3, "best policy, absolute")
    rows = []
    for label in sorted(labels, key=lambda label: -final[label].value):
        curves = comparison.of(task, label)
        row = [label, final[label].text(), ", ".join(f"{curve.seed}: {curve.final:.3f}" for curve in curves)]
        if with_absolute:
            row.append(_mean([curve.absolute for curve in curves], ".3f"))
        minutes = [None if curve.seconds is None else float(curve.seconds[-1]) / 60 for curve in curves]
        speeds = [found.frames_per_second.get((task, label, curve.seed)) for curve in curves]
        rows.append([*row, _frames(curves), _mean(minutes, ".1f"), _mean(speeds, ",.0f")])
    return Table(head, rows)


def _how(comparison: Comparison, found: Found, command: str) -> list[Block]:
    sessions = [session for facts in found.facts for session in facts["sessions"]]
    versions = {_listed(session["versions"]) for session in sessions}
    machines = {
        f"{session['machine']['gpu'] or session['machine']['processor']}, {session['machine']['cores']} cores, "
        f"{session['threads']} {'thread' if session['threads'] == 1 else 'threads'} per run"
        for session in sessions
    }
    items = [f"Versions: {text}." for text in sorted(versions)] + [f"Machine: {text}." for text in sorted(machines)]
    compiled = sum(any(session["compile"][part] for part in ("rollouts", "updates")) for session in sessions)
    if sessions:
        items.append(f"Compiled graphs in {compiled} of {len(sessions)} sessions.")
    arguments = {task: _arguments(found, task) for task in comparison.tasks}
    items += [f"`{task}`: {text}." for task, text in arguments.items() if text]
    if found.unfinished:
        items.append(f"Not here, because they have not ended: {', '.join(f'`{path}`' for path in found.unfinished)}.")
    items.append(f"All evaluations are in `{RUNS_FILE}`, in marl-eval's format, which this command reads, too.")
    items.append(f"Written {datetime.date.today().isoformat()}.")
    return [Heading("How it was made"), Bullets(items), Code(command)]


def _arguments(found: Found, task: str) -> str:
    config = next((config for (name, _, _), config in found.configs.items() if name == task), None)
    if config is None:
        return ""
    chosen = {**config["task"].get("params", {}), "max_steps": config["task"].get("max_steps")}
    return _listed({name: value for name, value in chosen.items() if value is not None and "${" not in str(value)})


def _listed(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)


def _ranked(aggregates: Mapping[str, Mapping[str, Estimate]]) -> list[str]:
    return sorted(aggregates, key=lambda label: -aggregates[label]["IQM"].value)


def _uneven(comparison: Comparison) -> bool:
    counts = {len(comparison.of(task, label)) for task in comparison.tasks for label in comparison.complete_labels}
    return len(counts) > 1


def _frames(curves: Sequence[RunCurve]) -> str:
    last = {int(curve.frames[-1]) for curve in curves}
    return f"{min(last):,}" if len(last) == 1 else f"{min(last):,} to {max(last):,}"


def _mean(values: Sequence[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):{form}}" if known else ""


def _named(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{len(names)} of them"
