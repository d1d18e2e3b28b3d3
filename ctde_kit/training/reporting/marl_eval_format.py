"""Learning curves read from and written to marl-eval's JSON (Gorsane et al. 2022), which BenchMARL also writes.

``{environment: {task: {algorithm: {seed_N: {step_K: {"step_count": frames, "elapsed_time": seconds, "return": [one per
episode]}, "absolute_metrics": {"return": [...]}}}}}}``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ctde_kit.errors import UserError
from ctde_kit.files import JsonObject, replacing
from ctde_kit.training.reporting.run_curves import RunCurve

RETURN, ABSOLUTE = "return", "absolute_metrics"


def write_marl_eval(curves: Iterable[RunCurve], path: Path) -> Path:
    """Write all runs to one file, and return ``path``.

    The absolute metric of a run that has none is the mean return of its best evaluation.

    >>> from pathlib import Path
    >>> import tempfile
    >>> import numpy as np
    >>> from ctde_kit.training.reporting import RunCurve, read_marl_eval, write_marl_eval
    >>> curve = RunCurve("vmas/navigation", "mappo", 3, np.array([600, 1200]), ((0.0, 0.2), (0.5, 0.7)))
    >>> path = write_marl_eval([curve], Path(tempfile.mkdtemp()) / "runs.json")
    >>> [(run.task, run.label, run.seed, run.frames.tolist(), run.episodes) for run in read_marl_eval(path)]
    [('vmas/navigation', 'mappo', 3, [600, 1200], ((0.0, 0.2), (0.5, 0.7)))]
    """
    data: JsonObject = {}
    for curve in curves:
        environment, _, task = curve.task.rpartition("/")
        algorithms = data.setdefault(environment or "environment", {}).setdefault(task, {})
        # marl-eval refuses commas in names.
        algorithms.setdefault(curve.label.replace(",", ";"), {})[f"seed_{curve.seed}"] = _run(curve)
    with replacing(path) as file:
        file.write((json.dumps(data, indent=1) + "\n").encode())
    return path


def _run(curve: RunCurve) -> JsonObject:
    run: dict[str, JsonObject] = {}
    for index, (frames, episodes) in enumerate(zip(curve.frames.tolist(), curve.episodes, strict=True)):
        run[f"step_{index}"] = {"step_count": int(frames), RETURN: list(episodes)}
        if curve.seconds is not None:
            run[f"step_{index}"]["elapsed_time"] = float(curve.seconds[index])
    absolute = float(curve.returns.max()) if curve.absolute is None else curve.absolute
    return {**run, ABSOLUTE: {RETURN: [absolute]}}


def read_marl_eval(path: Path) -> list[RunCurve]:
    """The runs in a file.

    Its absolute metrics are left out: BenchMARL's are the best single episode of all evaluations.

    Raises:
        UserError: where it is not in this format.

    >>> from pathlib import Path
    >>> import json, tempfile
    >>> from ctde_kit.training.reporting import read_marl_eval
    >>> steps = {"step_0": {"step_count": 6000, "return": [0.5, 0.7]}}
    >>> path = Path(tempfile.mkdtemp()) / "theirs.json"
    >>> _ = path.write_text(json.dumps({"vmas": {"navigation": {"mappo": {"seed_3": steps}}}}))
    >>> [(run.task, run.label, run.seed, run.episodes) for run in read_marl_eval(path)]
    [('vmas/navigation', 'mappo', 3, ((0.5, 0.7),))]
    """
    try:
        content = json.loads(path.read_text())
        return [
            _curve(f"{environment}/{task}".lower(), algorithm, name, steps)
            for environment, task, algorithm, name, steps in _leaves(content)
        ]
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise UserError(f"{path} is not in marl-eval's format ({type(error).__name__}: {error})") from error


def is_marl_eval(path: Path) -> bool:
    """Whether a JSON file is in this format.

    >>> from pathlib import Path
    >>> import tempfile
    >>> from ctde_kit.training.reporting import is_marl_eval
    >>> path = Path(tempfile.mkdtemp()) / "summary.json"
    >>> _ = path.write_text('{"algorithm": "mappo"}')
    >>> is_marl_eval(path)
    False
    """
    try:
        return bool(read_marl_eval(path))
    except UserError:
        return False


def _leaves(content: JsonObject) -> Iterator[tuple[str, str, str, str, JsonObject]]:
    for environment, tasks in content.items():
        for task, algorithms in tasks.items():
            for algorithm, runs in algorithms.items():
                for name, steps in runs.items():
                    yield environment, task, algorithm, name, steps


def _curve(task: str, algorithm: str, name: str, steps: JsonObject) -> RunCurve:
    found = sorted(
        (step for key, step in steps.items() if not key.startswith("absolute")), key=lambda step: step["step_count"]
    )
    if not found:
        raise ValueError(f"{algorithm} on {task}, {name}: no evaluation")
    timed = all("elapsed_time" in step for step in found)
    return RunCurve(
        task=task,
        label=algorithm.lower(),
        seed=int(name.rpartition("_")[2]),
        frames=np.array([step["step_count"] for step in found]),
        episodes=tuple(tuple(float(value) for value in step[RETURN]) for step in found),
        seconds=np.array([float(step["elapsed_time"]) for step in found]) if timed else None,
    )
