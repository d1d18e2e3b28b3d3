"""Learning curves of many runs, side by side: by task, by label, by seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ctde_kit.errors import UserError

GRID = 51


@dataclass(frozen=True)
class RunCurve:
    """The greedy evaluations of one run.

    Args:
        task: its name.
        label: what is compared: an algorithm, or a variant of one.
        seed: of the run.
        frames: at which it was evaluated, ``[F]``, increasing.
        episodes: the return of each episode of each evaluation.
        seconds: wall-clock time since its beginning, ``[F]``; ``None`` where that was not kept.
        absolute: what its best policy reached in a long evaluation of its own; ``None`` where it had none.

    >>> import numpy as np
    >>> from ctde_kit.training.reporting import RunCurve
    >>> curve = RunCurve("vmas/navigation", "mappo", 0, np.array([600, 1200]), ((0.0, 0.2), (0.5, 0.7)))
    >>> curve.returns.tolist(), curve.at(np.array([900.0])).round(2).tolist()
    ([0.1, 0.6], [0.35])
    """

    task: str
    label: str
    seed: int
    frames: np.ndarray
    episodes: tuple[tuple[float, ...], ...]
    seconds: np.ndarray | None = None
    absolute: float | None = None

    @cached_property
    def returns(self) -> np.ndarray:
        """The mean over episodes of each evaluation, ``[F]``."""
        return np.array([np.mean(values) for values in self.episodes])

    @property
    def final(self) -> float:
        """The return of the final policy."""
        return float(self.returns[-1])

    def at(self, frames: np.ndarray) -> np.ndarray:
        """Returns at ``frames``, on straight lines between evaluations."""
        return np.interp(frames, self.frames, self.returns)

    def at_seconds(self, seconds: np.ndarray) -> np.ndarray:
        """Returns at times in seconds; a run that has ended stays at its last return."""
        assert self.seconds is not None
        return np.interp(seconds, self.seconds, self.returns)


class Comparison:
    """Runs to compare: some labels on some tasks, each with some seeds.

    Args:
        curves: of all runs; each task, label and seed once.
        bounds: by task, the returns that count as 0 and 1; for other tasks the lowest and the highest mean return of
            any evaluation at hand (Gorsane et al. 2022, who take single episodes).

    Raises:
        UserError: for no runs, and for two of one seed.

    >>> import numpy as np
    >>> from ctde_kit.training.reporting import Comparison, RunCurve
    >>> frames = np.array([600, 1200])
    >>> curves = [RunCurve("t", name, 0, frames, ((0.0,), (value,))) for name, value in [("a", 4.0), ("b", 1.0)]]
    >>> {name: scores.tolist() for name, scores in Comparison(curves).final_scores().items()}
    {'a': [[1.0]], 'b': [[0.25]]}
    """

    def __init__(self, curves: Iterable[RunCurve], bounds: Mapping[str, tuple[float, float]] | None = None):
        self.curves = sorted(curves, key=lambda curve: curve.seed)
        if not self.curves:
            raise UserError("there are no runs to compare: give directories of runs that have ended")
        keys = [(curve.task, curve.label, curve.seed) for curve in self.curves]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise UserError(f"{twice[1]} on {twice[0]}, seed {twice[2]}: it is there twice; leave one out")
        self.tasks = sorted({curve.task for curve in self.curves})
        self.labels = sorted({curve.label for curve in self.curves})
        self.given = [task for task in self.tasks if task in (bounds or {})]
        self.bounds = {task: (bounds or {}).get(task) or self._extremes(task) for task in self.tasks}

    def of(self, task: str, label: str | None = None) -> list[RunCurve]:
        """The runs on ``task``, of one label or of all."""
        return [curve for curve in self.curves if curve.task == task and label in (None, curve.label)]

    @property
    def counted_tasks(self) -> list[str]:
        """Tasks that count over all tasks: those where not every evaluation has one and the same return."""
        return [task for task in self.tasks if self.bounds[task][0] < self.bounds[task][1]]

    @property
    def complete_labels(self) -> list[str]:
        """Labels that have runs on every task that counts: what is compared over all tasks."""
        return [label for label in self.labels if all(self.of(task, label) for task in self.counted_tasks)]

    def n_seeds(self, label: str) -> int:
        """How many runs of ``label`` count on each task over all tasks: as many as it has on every one."""
        return min((len(self.of(task, label)) for task in self.counted_tasks), default=0)

    @property
    def left_out(self) -> list[RunCurve]:
        """Runs of complete labels that do not count over all tasks: those of seeds that a label has on some alone."""
        return [
            curve
            for label in self.complete_labels
            for task in self.counted_tasks
            for curve in self.of(task, label)[self.n_seeds(label) :]
        ]

    def normalized(self, task: str, values: np.ndarray) -> np.ndarray:
        """Returns on ``task``, one of ``counted_tasks``, in units of its bounds."""
        low, high = self.bounds[task]
        return (values - low) / (high - low)

    def final_scores(self) -> dict[str, np.ndarray]:
        """By label, the normalized final returns, ``[seeds, tasks]``; labels may have different numbers of seeds."""
        if not self.counted_tasks:
            return {}
        return {label: self._stacked(label, lambda curve: np.array(curve.final)) for label in self.complete_labels}

    def curves_over_tasks(self, label: str, shares: np.ndarray) -> np.ndarray:
        """Normalized returns of ``label`` at shares of each task's frames, ``[seeds, tasks, F]``."""
        return self._stacked(label, lambda curve: curve.at(shares * self.last_frames(curve.task)))

    def last_frames(self, task: str, label: str | None = None) -> float:
        """The frames up to which all runs of ``label`` on ``task`` were evaluated; of the longest label if ``None``."""
        if label is None:
            return max(self.last_frames(task, name) for name in {curve.label for curve in self.of(task)})
        return float(min(curve.frames[-1] for curve in self.of(task, label)))

    def share_grid(self, label: str) -> np.ndarray:
        """The shares of each task's frames, of its longest label, at which all runs of ``label`` can be averaged."""
        last = {task: self.last_frames(task) for task in self.counted_tasks}
        first = max(curve.frames[0] / last[task] for task in last for curve in self.of(task, label))
        end = min(self.last_frames(task, label) / last[task] for task in last)
        return np.linspace(min(first, end), end, GRID)

    def frame_grid(self, task: str, label: str) -> np.ndarray:
        """Frames at which all runs of ``label`` on ``task`` can be averaged, up to the end of its shortest."""
        end = self.last_frames(task, label)
        return np.linspace(min(end, max(curve.frames[0] for curve in self.of(task, label))), end, GRID)

    def second_grid(self, task: str, label: str) -> np.ndarray | None:
        """Times from when all runs of one label were evaluated to the end of the slowest; ``None`` if not kept."""
        seconds = [curve.seconds for curve in self.of(task, label) if curve.seconds is not None]
        if not seconds or len(seconds) < len(self.of(task, label)):
            return None
        return np.linspace(max(times[0] for times in seconds), max(times[-1] for times in seconds), GRID)

    def _stacked(self, label: str, values_of: Callable[[RunCurve], np.ndarray]) -> np.ndarray:
        by_task = [
            np.stack([self.normalized(task, values_of(curve)) for curve in self.of(task, label)[: self.n_seeds(label)]])
            for task in self.counted_tasks
        ]
        return np.stack(by_task, axis=1)

    def _extremes(self, task: str) -> tuple[float, float]:
        values = np.concatenate([curve.returns for curve in self.of(task)])
        return float(values.min()), float(values.max())
