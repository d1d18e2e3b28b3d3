"""Callbacks of a run: what they see, and what they may change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ctde_kit.recipes import MatrixTask, QMIXConfig
from ctde_kit.training import Iteration, Run, RunDirectory, checkpoint_paths, run

pytestmark = pytest.mark.usefixtures("no_curves")


def started(path: Path, **options: Any) -> tuple[dict[str, Any], list[int], RunDirectory]:
    evaluated: list[int] = []

    def evaluate(frames: int) -> dict[str, float]:
        evaluated.append(frames)
        return {"return_mean": float(frames)}

    directory = RunDirectory(path)
    settings = Run(
        "qmix", "matrix/climbing", seed=0, total_frames=60, directory=directory, groups=["agents"], evaluate=evaluate,
        evaluate_every_frames=24, checkpoint_every_frames=1_000, progress=False,
    )  # fmt: skip
    parts = QMIXConfig(task=MatrixTask(n_envs=2), frames_per_batch=12, total_frames=60).build()
    return run(parts, settings, **options), evaluated, directory


def test_it_sees_every_iteration_and_the_last_evaluation(tmp_path: Path) -> None:
    seen: list[tuple[int, int, float | None]] = []

    def note(iteration: Iteration, row: dict[str, float]) -> None:
        seen.append((iteration.frames, int(row["frames"]), row.get("eval/return_mean")))

    summary, evaluated, directory = started(tmp_path, on_iteration=note)
    assert seen == [(12, 12, None), (24, 24, 24.0), (36, 36, 24.0), (48, 48, 48.0), (60, 60, 60.0)]
    assert (summary["frames"], evaluated) == (60, [24, 48, 60])
    # The file has evaluations where they were made, and nothing that the callback was shown beside them.
    assert [row.get("eval/return_mean") for row in directory.rows] == [None, 24.0, None, 48.0, 60.0]


def test_true_ends_the_run_evaluated_and_with_a_checkpoint(tmp_path: Path) -> None:
    summary, evaluated, directory = started(tmp_path, on_iteration=lambda iteration, row: iteration.frames >= 36)
    assert (summary["frames"], summary["eval/return_mean"], evaluated) == (36, 36.0, [24, 36])
    assert directory.rows[-1]["eval/return_mean"] == 36.0
    assert [path.name for path in checkpoint_paths(directory.checkpoints)] == ["frames_36.pt"]
    assert json.loads((tmp_path / "summary.json").read_text())["frames"] == 36
    # At an evaluation it is not made twice.
    assert started(tmp_path / "other", on_iteration=lambda iteration, row: iteration.frames >= 24)[1] == [24]
