"""Callbacks of a run: what they see, and what they may change."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict

from ctde_kit.errors import CallbackError, UserError
from ctde_kit.recipes import MatrixTask, QMIXConfig
from ctde_kit.training import (
    Callbacks,
    Iteration,
    Parts,
    Run,
    RunDirectory,
    checkpoint_paths,
    load_parts,
    read_checkpoint,
    run,
)

pytestmark = pytest.mark.usefixtures("no_curves")


def started(path: Path, **options: Any) -> tuple[dict[str, Any], list[int], RunDirectory]:
    evaluated: list[int] = []

    def evaluate(frames: int) -> dict[str, float]:
        evaluated.append(frames)
        return {"return_mean": float(frames)}

    directory = RunDirectory(path)
    content = None
    for checkpoint in checkpoint_paths(directory.checkpoints)[-1:]:
        content = read_checkpoint(checkpoint, algorithm="qmix")
        directory.read_rows(content["frames"], content["rows"].tolist())
    settings = Run(
        "qmix", "matrix/climbing", seed=0, total_frames=60, directory=directory, groups=["agents"], evaluate=evaluate,
        evaluate_every_frames=24, checkpoint_every_frames=1_000, progress=False,
    )  # fmt: skip
    parts = QMIXConfig(task=MatrixTask(n_envs=2), frames_per_batch=12, total_frames=60).build()
    if content is not None:
        load_parts(content, parts, **options)
    return run(parts, settings, **options), evaluated, directory


def test_it_sees_every_iteration_and_the_last_evaluation(tmp_path: Path) -> None:
    seen: list[tuple[int, int, float | None]] = []

    def note(parts: Parts, iteration: Iteration, row: dict[str, float]) -> None:
        seen.append((iteration.frames, int(row["frames"]), row.get("eval/return_mean")))

    summary, evaluated, directory = started(tmp_path, on_iteration=note)
    assert seen == [(12, 12, None), (24, 24, 24.0), (36, 36, 24.0), (48, 48, 48.0), (60, 60, 60.0)]
    assert (summary["frames"], evaluated) == (60, [24, 48, 60])
    # The file has evaluations where they were made, and nothing that the callback was shown beside them.
    assert [row.get("eval/return_mean") for row in directory.rows] == [None, 24.0, None, 48.0, 60.0]


def test_true_ends_the_run_evaluated_and_with_a_checkpoint(tmp_path: Path) -> None:
    summary, evaluated, directory = started(tmp_path, on_iteration=lambda parts, iteration, row: iteration.frames >= 36)
    assert (summary["frames"], summary["eval/return_mean"], evaluated) == (36, 36.0, [24, 36])
    assert directory.rows[-1]["eval/return_mean"] == 36.0
    assert [path.name for path in checkpoint_paths(directory.checkpoints)] == ["frames_36.pt"]
    assert json.loads((tmp_path / "summary.json").read_text())["frames"] == 36
    # At an evaluation it is not made twice.
    assert started(tmp_path / "other", on_iteration=lambda parts, iteration, row: iteration.frames >= 24)[1] == [24]


class Remembers:
    """A callback with a state: what it was shown, in order."""

    def __init__(self, breaks_at: int = 0) -> None:
        self.breaks_at, self.shown = breaks_at, torch.zeros(0, 2)

    def __call__(self, parts: Parts, iteration: Iteration, row: dict[str, float]) -> None:
        if iteration.frames == self.breaks_at:
            raise ZeroDivisionError("at last")
        shown = torch.tensor([[row["frames"], row.get("eval/return_mean", -1.0)]])
        self.shown = torch.cat([self.shown, shown])

    def state_dict(self) -> dict[str, Any]:
        return {"shown": self.shown}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.shown = state["shown"]


@pytest.mark.parametrize("wrapped", [False, True])
def test_what_it_raises_ends_the_run_and_nothing_is_lost(wrapped: bool, tmp_path: Path) -> None:
    def given(callback: Remembers) -> Any:
        return Callbacks({"mine": callback}) if wrapped else callback

    whole = Remembers()
    started(tmp_path / "whole", on_iteration=given(whole))
    assert whole.shown[:, 0].tolist() == [12, 24, 36, 48, 60]
    with pytest.raises(CallbackError if wrapped else ZeroDivisionError, match="at last") as caught:
        started(tmp_path / "run", on_iteration=given(Remembers(breaks_at=36)))
    if wrapped:
        assert str(caught.value) == "callback mine at 36 frames: ZeroDivisionError: at last"
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert [path.name for path in checkpoint_paths(tmp_path / "run" / "checkpoints")] == ["frames_36.pt"]
    resumed = Remembers()
    summary, _, directory = started(tmp_path / "run", on_iteration=given(resumed))
    assert summary["frames"] == 60
    assert [row["frames"] for row in directory.rows] == [12, 24, 36, 48, 60]
    # The iteration at which it broke is the only one that it was not shown; the last evaluation stands in those after.
    assert torch.equal(resumed.shown, whole.shown[[0, 1, 3, 4]])


def test_a_run_that_goes_on_is_shown_the_last_evaluation(tmp_path: Path) -> None:
    def stops(parts: Parts, iteration: Iteration, row: dict[str, float]) -> None:
        if iteration.frames == 24:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        started(tmp_path, on_iteration=stops)
    resumed = Remembers()
    started(tmp_path, on_iteration=lambda *given: resumed(*given))
    assert resumed.shown.tolist() == [[36, 24], [48, 48], [60, 60]]


@pytest.mark.parametrize(
    ("answer", "found"), [(torch.tensor(True), r"tensor\(True\)"), (1, "found 1"), ("no", "found 'no'")]
)
def test_an_answer_is_true_false_or_none(answer: Any, found: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"expected True, which ends the run, False or None to be returned.*{found}"):
        started(tmp_path, on_iteration=lambda *given: answer)


def test_all_are_called_and_the_first_that_asks_is_named(tmp_path: Path) -> None:
    seen: list[int] = []
    callbacks = Callbacks(
        {
            "early": lambda parts, iteration, row: iteration.frames >= 24,
            "also": lambda parts, iteration, row: iteration.frames >= 24,
            "last": lambda parts, iteration, row: seen.append(iteration.frames),
        }
    )
    summary, *_ = started(tmp_path, on_iteration=callbacks)
    assert (summary["frames"], callbacks.ended_by, seen) == (24, "early", [12, 24])


def test_a_state_that_a_checkpoint_cannot_give_back_is_refused_at_once(tmp_path: Path) -> None:
    callback = Remembers()
    callback.state_dict = lambda: {"best": [1.0, Path("x")]}
    with pytest.raises(CallbackError, match=r"callback mine at 12 frames: .*state_dict\(\)\['best'\]\[1\].*PosixPath"):
        started(tmp_path, on_iteration=Callbacks({"mine": callback}))


class Warms:
    """Sets an option that is no part's state, from the first iteration on."""

    def on_start(self, parts: Parts, frames: int) -> None:
        parts.update.max_grad_norm = 1.0 + frames

    def __call__(self, parts: Parts, iteration: Iteration, row: dict[str, float]) -> None:
        self.seen = parts.update.max_grad_norm
        if iteration.frames == 24:
            raise ZeroDivisionError


@pytest.mark.parametrize("wrapped", [False, True])
def test_before_the_first_iteration_a_run_that_goes_on_is_set_as_one_that_begins(wrapped: bool, tmp_path: Path) -> None:
    callback = Warms()
    given: Any = Callbacks({"mine": callback}) if wrapped else callback
    error, message = (CallbackError, "mine at 24 frames: ZeroDivisionError") if wrapped else (ZeroDivisionError, "^$")
    with pytest.raises(error, match=message):
        started(tmp_path, on_iteration=given)
    assert callback.seen == 1.0
    started(tmp_path, on_iteration=given)
    assert callback.seen == 25.0


def test_one_that_leaves_the_program_is_an_error() -> None:
    callbacks = Callbacks({"mine": lambda *given: sys.exit()})
    with pytest.raises(CallbackError, match="callback mine at 12 frames: SystemExit"):
        callbacks(None, Iteration(12, TensorDict(), {}), {})


def test_a_state_of_other_callbacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CallbackError, match="mine at 36 frames"):
        started(tmp_path, on_iteration=Callbacks({"mine": Remembers(breaks_at=36)}))
    with pytest.raises(UserError, match="state of the callbacks mine, this run has a state of yours"):
        started(tmp_path, on_iteration=Callbacks({"yours": Remembers()}))
