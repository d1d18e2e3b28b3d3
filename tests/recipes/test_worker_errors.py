"""What goes wrong in worker processes, as the command line says it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from mpe2.simple_spread import simple_spread

from tests.recipes.command_line import assert_one_line, call_here

SMALL = (
    "task=pettingzoo/simple_spread",
    "task.n_envs=2",
    "task.n_workers=1",
    "task.worker_timeout=2",
    "device=cpu",
    "minibatch_frames=20",
)


def explode() -> None:
    raise ArithmeticError("two\nlines")


def hang() -> None:
    while True:
        pass


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (explode, "worker 0 (envs 0-1) failed in step of env 0: ArithmeticError: two lines; its traceback is in "),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "worker 0 (envs 0-1) died: killed by SIGKILL"),
        pytest.param(
            hang,
            "has not come back for 8 s from step of env 0; mend the environment, or give a larger task.worker_timeo",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["raises", "dies", "hangs"],
)
def test_one_line_and_where_the_traceback_is(what: Any, message: str, tmp_path: Path) -> None:
    step = simple_spread.raw_env.step
    parent = os.getpid()

    def failing(self: Any, action: Any) -> Any:
        if os.getpid() != parent:
            what()
        return step(self, action)

    with mock.patch.object(simple_spread.raw_env, "step", failing):
        # Long enough for a busy machine to make the environments.
        patience = "task.worker_timeout=8" if what is hang else "task.worker_timeout=60"
        result = call_here(
            tmp_path, "mappo", *SMALL, patience, "frames_per_batch=20", "total_frames=20", "hydra.run.dir=run"
        )
    assert_one_line(result, message, program="ctde-mappo")
    trace = tmp_path / "run" / "worker_traceback.txt"
    assert trace.exists() == (what is explode)
    if trace.exists():
        assert str(trace) in result.stderr
        assert 'raise ArithmeticError("two' in trace.read_text()
    # The same command works again.
    again = call_here(
        tmp_path,
        "mappo",
        *SMALL,
        "frames_per_batch=20",
        "total_frames=20",
        "evaluation.episodes=2",
        "hydra.run.dir=run",
    )
    assert again.returncode == 0, again.stderr
