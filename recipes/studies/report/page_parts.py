"""Paragraphs and tables that are on the pages of both ``ctde report`` and ``ctde compare``."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence

import numpy as np

from ctde_kit.recipes.studies.report.document import Block, Bullets, Code, Heading, Table
from ctde_kit.recipes.studies.report.sources import Found
from ctde_kit.training.reporting import Comparison, RunCurve, interquartile_means
from ctde_kit.training.reporting.interval_estimates import CONFIDENCE


def introduction(comparison: Comparison, each: str) -> str:
    """How many runs there are, and what the figures are.

    Args:
        comparison: of all runs.
        each: what the seeds are counted for, such as "curve".
    """
    counts = {len(comparison.of(task, label)) for task in comparison.tasks for label in comparison.labels} - {0}
    seeds = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    plural = "seed" if counts == {1} else "seeds"
    return (
        f"{len(comparison.curves)} runs, {seeds} {plural} per {each}. A return is the sum of rewards over an "
        "episode of the greedy policy, averaged over agents and episodes, on seeds that training never used. Figures "
        f"are interquartile means (IQM) over runs; in brackets, and as bands and bars, {CONFIDENCE:.0%} intervals of a "
        "bootstrap over seeds, stratified by task (Agarwal et al. 2021, `rliable`)."
    )


def task_table(comparison: Comparison, found: Found, task: str) -> Table:
    """A table with one row per label that has runs on ``task``: final return, every seed, frames, time."""
    labels = [label for label in comparison.labels if comparison.of(task, label)]
    final = interquartile_means(
        {label: np.array([[curve.final] for curve in comparison.of(task, label)]) for label in labels}
    )
    with_absolute = any(curve.absolute is not None for curve in comparison.of(task))
    head = ["recipe", "final return, IQM", "each seed's final return", "frames", "minutes", "frames per second"]
    if with_absolute:
        head.insert(3, "best policy, absolute")
    rows, longest = [], max(int(curve.frames[-1]) for curve in comparison.of(task))
    for label in labels:
        curves = comparison.of(task, label)
        row = [label, final[label].text(), ", ".join(f"{curve.seed}: {curve.final:.3f}" for curve in curves)]
        if with_absolute:
            row.append(_mean([curve.absolute for curve in curves], ".3f"))
        minutes = [None if curve.seconds is None else float(curve.seconds[-1]) / 60 for curve in curves]
        speeds = [found.frames_per_second.get((task, label, curve.seed)) for curve in curves]
        rows.append([*row, _frames(curves, longest), _mean(minutes, ".1f"), _mean(speeds, ",.0f")])
    return Table(head, rows)


def bullets(sentences: Sequence[str]) -> list[Block]:
    """A list of the sentences, if there are any."""
    return [Bullets(sentences)] if sentences else []


def how_it_was_made(comparison: Comparison, found: Found, command: str, *notes: str) -> list[Block]:
    """Versions, machines, the tasks' arguments, what was left out, ``notes``, and the command of the page."""
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
    items += notes
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


def _frames(curves: Sequence[RunCurve], longest: int) -> str:
    """At how many frames the runs ended; marked where other runs on the task went on."""
    last = {int(curve.frames[-1]) for curve in curves}
    text = f"{min(last):,}" if len(last) == 1 else f"{min(last):,} to {max(last):,}"
    return text if min(last) == longest else f"{text} (not all of {longest:,})"


def _mean(values: Sequence[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):{form}}" if known else ""


def named(names: Sequence[str]) -> str:
    """The names, if they are few; else how many there are."""
    return ", ".join(names) if len(names) <= 4 else f"{len(names)} of them"
