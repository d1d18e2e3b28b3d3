"""Runs a recipe's parts to the end, with evaluation, metrics, checkpoints and reports of progress."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from tensordict import TensorDictBase

from ctde_kit.errors import RunStopped
from ctde_kit.files import JsonObject
from ctde_kit.keys import DONE, NEXT, GroupKeys
from ctde_kit.training.callbacks import OnIteration, asks_to_end, start
from ctde_kit.training.checkpoint import checkpoint_path, checkpoint_paths, save_checkpoint
from ctde_kit.training.loop import iterate
from ctde_kit.training.parts import Iteration, Parts
from ctde_kit.training.reporting import plot_run, shown_returns
from ctde_kit.training.reporting.patient_logger import ScalarLogger
from ctde_kit.training.reporting.progress import Progress, reporting_progress
from ctde_kit.training.run_directory import RunDirectory
from ctde_kit.training.stop_signals import StopSignals

logger = logging.getLogger("ctde_kit")

KEPT_CHECKPOINTS = 2


@dataclass
class Run:
    """The settings of one run: what ``run`` needs besides the parts.

    Args:
        algorithm: name of the recipe.
        task: name of the task.
        seed: random seed of the run.
        total_frames: env transitions to collect.
        directory: where results are written.
        groups: names of the agent groups.
        evaluate: returns the metrics of the greedy policy; takes the frames collected so far.
        evaluate_every_frames: smallest number of frames between evaluations; there is always one at the end.
        checkpoint_every_frames: smallest number of frames between checkpoints; there is always one at the end.
        loggers: TorchRL loggers that get the same values as ``metrics.csv``; their errors are warnings, see
            ``PatientLogger`` for those that may not answer.
        started_seconds: seconds that the run had taken before it was resumed.
        progress: a ``bar``, ``lines`` (one per minute), or ``none``.
        stop: whether a signal has asked to stop.
        before_checkpoint: called before each checkpoint is written.
        after_checkpoint: called after each checkpoint with its frames; a last one that an error leaves is left out.
        conclude: called at the end; what it returns is added to ``summary.json``.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from ctde_kit.training import Run, RunDirectory
    >>> settings = Run(
    ...     "qmix", "matrix/climbing", seed=0, total_frames=24, directory=RunDirectory(Path(tempfile.mkdtemp())),
    ...     groups=["agents"], evaluate=lambda frames: {"return_mean": 11.0}, evaluate_every_frames=24,
    ...     checkpoint_every_frames=24,
    ... )
    >>> settings.directory.checkpoints.name
    'checkpoints'
    """

    algorithm: str
    task: str
    seed: int
    total_frames: int
    directory: RunDirectory
    groups: list[str]
    evaluate: Callable[[int], dict[str, float]]
    evaluate_every_frames: int
    checkpoint_every_frames: int
    loggers: list[ScalarLogger] = field(default_factory=list)
    started_seconds: float = 0.0
    progress: Progress = "bar"
    stop: StopSignals = field(default_factory=StopSignals)
    before_checkpoint: Callable[[], None] = lambda: None
    after_checkpoint: Callable[[int], None] = lambda frames: None
    conclude: Callable[[], JsonObject] = dict


def run(parts: Parts, settings: Run, *, on_iteration: OnIteration | None = None) -> JsonObject:
    """Train to the end and write the run directory; returns the content of ``summary.json``.

    ``metrics.csv`` gets one row per iteration: ``frames``, ``seconds`` (wall-clock time including evaluation),
    ``train/...`` (means over the iteration) and, after an evaluation, ``eval/...``.

    Args:
        parts: of the recipe; ``on_iteration`` may change them between iterations.
        settings: of the run.
        on_iteration: called after each iteration with the parts, the iteration, and its row of ``metrics.csv`` together
            with the last evaluation. If it returns ``True``, the run ends as if all frames were collected, with an
            evaluation and a checkpoint. If it raises, the run ends after a checkpoint. If it has a ``state_dict``, its
            state is saved; if it has ``on_start(parts, frames)``, that is called before the first iteration. For
            several see ``Callbacks``.

    Raises:
        RunStopped: at the end of an iteration, after its checkpoint, where a signal asked for it.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from ctde_kit.recipes import MatrixTask, QMIXConfig
    >>> from ctde_kit.training import Run, RunDirectory, run
    >>> parts = QMIXConfig(task=MatrixTask(n_envs=2), frames_per_batch=12, total_frames=24).build()
    >>> settings = Run(
    ...     "qmix", "matrix/climbing", seed=0, total_frames=24, directory=RunDirectory(Path(tempfile.mkdtemp())),
    ...     groups=["agents"], evaluate=lambda frames: {"return_mean": 11.0}, evaluate_every_frames=24,
    ...     checkpoint_every_frames=24, progress="none",
    ... )
    >>> summary = run(parts, settings)
    >>> summary["frames"], summary["eval/return_mean"]
    (24, 11.0)
    """
    frames = parts.collector.frames
    clock = time.perf_counter() - settings.started_seconds
    training_seconds = 0.0
    earlier = _earlier_evaluation(settings.directory)
    last_evaluation, last_checkpoint = earlier.get("frames", 0), frames
    first_frames, evaluation = frames, {}
    start(on_iteration, parts, frames)
    with reporting_progress(settings.progress, settings.total_frames, frames) as report:
        before = time.perf_counter()
        for iteration in iterate(parts):
            training_seconds += time.perf_counter() - before
            frames = iteration.frames
            row = {"frames": frames, "seconds": time.perf_counter() - clock, **_train_metrics(iteration, settings)}
            is_last = frames >= settings.total_frames
            if is_last or frames - last_evaluation >= settings.evaluate_every_frames:
                evaluation = _evaluated(settings, frames)
                row.update(evaluation)
                last_evaluation = frames
            if _ends(on_iteration, parts, iteration, row, {**earlier, **evaluation}, settings):
                if last_evaluation != frames:
                    evaluation = _evaluated(settings, frames)
                    row.update(evaluation)
                is_last, last_evaluation = True, frames
            _log(row, settings)
            stopping = settings.stop.at_boundary()
            if stopping or is_last or frames - last_checkpoint >= settings.checkpoint_every_frames:
                checkpoint(parts, settings, frames, on_iteration)
                settings.after_checkpoint(frames)
                last_checkpoint = frames
            if stopping and not is_last:
                parts.collector.shutdown()
                raise RunStopped(f"stopped at {frames} frames", settings.stop.signal or 0)
            report(frames, _returns(row, evaluation))
            if is_last:
                break
            before = time.perf_counter()
    if not evaluation:
        evaluation = _evaluated(settings, frames)
    parts.collector.shutdown()
    return _finish(settings, frames, (frames - first_frames) / max(training_seconds, 1e-9), evaluation, clock)


def _ends(
    on_iteration: OnIteration | None,
    parts: Parts,
    iteration: Iteration,
    row: dict[str, float],
    evaluation: dict[str, float],
    settings: Run,
) -> bool:
    """Whether the callback ends the run; where it raises, what was learned is kept in a checkpoint."""
    if on_iteration is None:
        return False
    try:
        return asks_to_end(on_iteration(parts, iteration, {**evaluation, **row}))
    except Exception:
        _log(row, settings)
        try:
            checkpoint(parts, settings, iteration.frames, on_iteration)
        except Exception as error:
            logger.warning("no checkpoint at %d frames (%r); the one before it stays", iteration.frames, error)
        parts.collector.shutdown()
        raise


def _evaluated(settings: Run, frames: int) -> dict[str, float]:
    return {f"eval/{name}": value for name, value in settings.evaluate(frames).items()}


def _earlier_evaluation(directory: RunDirectory) -> dict[str, float]:
    """The frames and figures of the last evaluation before the run was resumed; empty where there was none."""
    for row in reversed(directory.rows):
        found = {name: value for name, value in row.items() if name.startswith("eval/")}
        if found:
            return {"frames": row["frames"], **found}
    return {}


def checkpoint(parts: Parts, settings: Run, frames: int, on_iteration: OnIteration | None) -> None:
    """Write a checkpoint, and delete all but the latest ``KEPT_CHECKPOINTS``."""
    directory = settings.directory.checkpoints
    rows = settings.directory.sync_rows()
    path = checkpoint_path(directory, frames)
    settings.before_checkpoint()
    save_checkpoint(path, parts, algorithm=settings.algorithm, frames=frames, rows=rows, on_iteration=on_iteration)
    for path in checkpoint_paths(directory)[:-KEPT_CHECKPOINTS]:
        path.unlink()


def _train_metrics(iteration: Iteration, settings: Run) -> dict[str, float]:
    metrics = {f"train/{name}": value for name, value in iteration.metrics.items()}
    ended = iteration.batch.get((NEXT, DONE)).squeeze(-1)
    if bool(ended.any()):
        for group in settings.groups:
            prefix = f"train/{group}/" if len(settings.groups) > 1 else "train/"
            metrics[f"{prefix}return_mean"] = _mean_return_of_ended(iteration.batch, group, ended)
    return metrics


def _mean_return_of_ended(batch: TensorDictBase, group: str, ended: torch.Tensor) -> float:
    return batch.get((NEXT, *GroupKeys(group).episode_reward))[ended].mean().item()


def _log(row: dict[str, float], settings: Run) -> None:
    settings.directory.write_row(row)
    for scalar_logger in settings.loggers:
        try:
            for name, value in row.items():
                if name != "frames":
                    scalar_logger.log_scalar(name, value, step=int(row["frames"]))
        except Exception as error:
            name = type(scalar_logger).__name__
            logger.warning("%s: no row at %d frames (%r); metrics.csv has it", name, row["frames"], error)


def _returns(row: dict[str, float], evaluation: dict[str, float]) -> str:
    shown = {**row, **evaluation}
    return ", ".join(f"{name.removesuffix('_mean')} {shown[name]:.2f}" for name in shown_returns(shown))


def _finish(
    settings: Run, frames: int, frames_per_second: float, evaluation: dict[str, float], clock: float
) -> JsonObject:
    summary = {
        "algorithm": settings.algorithm,
        "task": settings.task,
        "seed": settings.seed,
        "frames": frames,
        "seconds": time.perf_counter() - clock,
        "frames_per_second": frames_per_second,
        **evaluation,
        **settings.conclude(),
    }
    plot_run(
        settings.directory.rows,
        settings.directory.plots,
        f"{settings.algorithm} on {settings.task}, seed {settings.seed}",
    )
    settings.directory.write_summary(summary)
    return summary
