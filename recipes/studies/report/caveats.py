"""What a reader must know before trusting a page's figures: runs that are not in them, and runs that differ."""

from __future__ import annotations

from collections.abc import Sequence

from ctde_kit.recipes.studies.report.sources import Found
from ctde_kit.training.reporting import Comparison
from ctde_kit.training.reporting.interval_estimates import MIN_SEEDS

# An interquartile mean leaves out a quarter at each end, rounded down: nothing below so many.
MIN_TRIMMED = 4
SHOWN = 4


def run_caveats(comparison: Comparison, found: Found) -> list[str]:
    """Sentences on the runs as a whole: which are missing, which are not independent, how few seeds there are."""
    sentences = [_progress(plan.file.as_posix(), plan.ended, plan.unfinished, plan.not_started) for plan in found.plans]
    sentences += [
        f"`{path}`: the {count} runs are members of one population, which exchanged critics, and no independent seeds; "
        "intervals over them are too narrow."
        for path, count in found.populations.items()
    ]
    return [sentence for sentence in sentences if sentence] + seed_caveats(comparison)


def seed_caveats(comparison: Comparison) -> list[str]:
    """Sentences on labels with few seeds."""
    counts = {
        (task, label): len(comparison.of(task, label)) for task in comparison.tasks for label in comparison.labels
    }
    counts = {key: count for key, count in counts.items() if count}
    few = sorted({label for (_, label), count in counts.items() if count < MIN_SEEDS})
    sentences = []
    if few:
        sentences.append(
            f"No interval is given below {MIN_SEEDS} seeds, because a bootstrap of one or two draws little else than "
            f"these same runs: {shortened(few)}."
        )
    if min(counts.values()) < MIN_TRIMMED:
        sentences.append(f"With fewer than {MIN_TRIMMED} seeds the interquartile mean is the plain mean.")
    return sentences


def caveats_over_tasks(comparison: Comparison) -> list[str]:
    """Sentences on what does not count over all tasks."""
    sentences = [
        f"`{task}` does not count here, because all of its evaluations have the same return, "
        f"{comparison.bounds[task][0]:.3f}; `bounds.{task}=[LOW,HIGH]` would let it count."
        for task in comparison.tasks
        if task not in comparison.counted_tasks
    ]
    labels = comparison.complete_labels
    incomplete = [label for label in comparison.labels if label not in labels]
    if incomplete:
        sentences.append(f"Left out here, for want of runs on every task: {', '.join(incomplete)}.")
    counts = {label: comparison.n_seeds(label) for label in labels}
    if len({*counts.values()}) > 1:
        numbers = ", ".join(f"{label} {count}" for label, count in counts.items())
        sentences.append(f"Recipes have different numbers of seeds per task here, and all of these count: {numbers}.")
    left_out = [f"{curve.label} on {curve.task}, seed {curve.seed}" for curve in comparison.left_out]
    if left_out:
        sentences.append(
            "Left out here, because a recipe counts with as many seeds as on the task where it has fewest: "
            f"{'; '.join(left_out)}."
        )
    return sentences


def frame_caveats(comparison: Comparison) -> list[str]:
    """A sentence for each task whose runs end at different frames."""
    return [sentence for task in comparison.tasks if (sentence := _ends(comparison, task))]


def shortened(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"


def _ends(comparison: Comparison, task: str) -> str:
    ends: dict[str, list[int]] = {}
    for curve in comparison.of(task):
        ends.setdefault(curve.label, []).append(int(curve.frames[-1]))
    if len({end for several in ends.values() for end in several}) == 1:
        return ""
    texts = [f"{label} {_range(ends[label])}" for label in comparison.labels if label in ends]
    return (
        f"On `{task}` runs end at different frames, and so final returns are those of different amounts of training: "
        f"{', '.join(texts)}."
    )


def _range(ends: Sequence[int]) -> str:
    return f"{min(ends):,}" if min(ends) == max(ends) else f"{min(ends):,} to {max(ends):,}"


def _progress(file: str, ended: int, unfinished: int, not_started: Sequence[str]) -> str:
    total = ended + unfinished + len(not_started)
    if ended == total:
        return ""
    parts = [f"{ended} of the {total} runs that `{file}` lists have ended"]
    if unfinished:
        parts.append(f"{unfinished} have started but not ended")
    if not_started:
        parts.append(f"{len(not_started)} have not started: {shortened(not_started)}")
    return f"{'; '.join(parts)}."
