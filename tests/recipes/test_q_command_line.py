"""The Q-learning command lines as users call them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from tests.recipes.command_line import assert_one_line, call_here, kill_and_resume

SMALL = [
    "task.continuous_actions=false",
    "task.n_envs=6",
    "task.max_steps=7",
    "task.params.n_agents=2",
    "frames_per_batch=60",
    "evaluation.episodes=4",
    "evaluation.every_frames=1200",
    "checkpoint.every_frames=60",
    "actor.num_cells=[8]",
    "device=cpu",
]
REPLAY = ["updates_per_frame=0.05", "replay.capacity=400", "replay.batch_size=16"]


@pytest.mark.slow
def test_run_killed_and_resumed_equals_the_run_that_never_stopped(tmp_path: Path) -> None:
    sequences = ["network@actor=gru", "actor.hidden_size=6", "replay=sequences", "replay.form.length=4"]
    sequences += ["replay.form.burn_in=2", "replay.prioritized=true", "replay.stored_on=disk"]
    arguments = [*SMALL, *REPLAY, *sequences, "total_frames=1200"]
    kill_and_resume(tmp_path, "qmix", *arguments, after="frames_4*.pt")
    states = [
        torch.load(tmp_path / run / "checkpoints" / "frames_1200.pt", weights_only=True)["parts"]
        for run in ("whole", "killed")
    ]
    for part in ("update", "buffer", "update_schedule"):
        leaves = [torch.utils._pytree.tree_leaves(state[part]) for state in states]
        assert len(leaves[0]) == len(leaves[1])
        for ours, theirs in zip(*leaves, strict=True):
            assert torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs, part
    with open(tmp_path / "killed" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(float(row["frames"])) for row in rows] == list(range(60, 1201, 60))
    assert sum(float(row["train/num_updates"]) for row in rows) == 60


@pytest.mark.parametrize("recipe", ["vdn", "iql", "qplex", "pqn"])
def test_each_recipe_runs_and_says_which_it_is(recipe: str, tmp_path: Path) -> None:
    own = ["minibatch_frames=20", "sequence_length=5"] if recipe == "pqn" else REPLAY
    result = call_here(tmp_path, recipe, *SMALL, *own, "total_frames=120", "hydra.run.dir=run")
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["algorithm"] == recipe
    resumed = call_here(tmp_path, recipe, "resume=run", "total_frames=180")
    assert resumed.returncode == 0, resumed.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["algorithm"], summary["frames"]) == (recipe, 180)


@pytest.mark.parametrize("task", ["two_step", "climbing", "penalty"])
def test_matrix_games_are_tasks(task: str, tmp_path: Path) -> None:
    arguments = [f"task=matrix/{task}", "frames_per_batch=32", "total_frames=32", "updates_per_frame=0.1"]
    result = call_here(tmp_path, "qmix", *arguments, "replay=episodes", "returns=td_lambda", "hydra.run.dir=run")
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["task"] == f"matrix/{task}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["task.continuous_actions=true"],
            "Q-learning needs discrete actions; use task.continuous_actions=false where the task has it",
        ),
        (["task.continuous_actions=false", "mixer.sees=state"], "use mixer.sees=team"),
        (
            ["task=memory/recall", "replay=sequences", "replay.form.length=50", "replay.capacity=40"],
            "expected room for an item of 50 frames",
        ),
        (
            ["task=memory/recall", "replay=sequences", "replay.form.length=50", "frames_per_batch=600"],
            "no item of 50 steps is whole; make replay.form.length=50 smaller, or raise learning_starts",
        ),
        (
            [
                *("task=memory/recall", "network@actor=gru", "frames_per_batch=600"),
                *("replay=sequences", "replay.form.length=50", "replay.form.burn_in=4"),
            ],
            "no item of 54 steps is whole; make replay.form.length=50 or replay.form.burn_in=4 smaller",
        ),
        (
            ["task=memory/recall", "replay.stored_on=disk", "replay.capacity=10000000000000"],
            "GB left, expected",
        ),
        (
            ["task=memory/recall", "network@actor=gru"],
            "replay=transitions: recurrent networks learn sequences; use replay=sequences or replay=episodes",
        ),
        (["task=memory/recall", "returns.n=3"], "replay=transitions: these returns need sequences; use replay=seq"),
        (["task=memory/recall", "returns=td_lambda"], "replay=transitions: these returns need sequences; use replay"),
        (["mixer=qmx"], "did you mean qmix"),
        (["task=memory/recall", "returns.m=3"], "there is no such option; did you mean returns.n or returns or"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments: list[str], message: str, tmp_path: Path) -> None:
    assert_one_line(call_here(tmp_path, "qmix", *arguments), message, program="ctde-qmix")
    assert not list(tmp_path.rglob("*.csv"))  # nothing was collected


def test_a_disk_that_fills_up_leaves_the_checkpoints_of_a_run_intact(tmp_path: Path) -> None:
    arguments = [*SMALL, *REPLAY, "total_frames=120", "hydra.run.dir=run", "replay.stored_on=disk"]
    assert call_here(tmp_path, "qmix", *arguments).returncode == 0
    config = tmp_path / "run" / "config.yaml"
    # Without its last line, the checksum, it is the user's who changed it.
    content = "".join(config.read_text().splitlines(True)[:-1])
    config.write_text(content.replace("capacity: 400", "capacity: 10000000000000"))
    before = {path.name: path.read_bytes() for path in (tmp_path / "run" / "checkpoints").iterdir()}
    result = call_here(tmp_path, "qmix", "resume=run", "total_frames=240")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr
    assert "GB left, expected" in result.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "run" / "checkpoints").iterdir()} == before
