"""Bad command lines: each is one line and exit code 2, and leaves no directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.recipes.command_line import assert_one_line, call_here, composed


@pytest.mark.parametrize(
    ("recipe", "argument", "message"),
    [
        ("mappo", "--foo", "--foo: there is no such flag; options are NAME=VALUE, `ctde-mappo --help` lists them"),
        ("mappo", "--foo=1", "there is no such flag"),
        ("mappo", "+gama=3", "+gama=3: options need no plus sign"),
        ("mappo", "gama=3", "Could not override 'gama': Key 'gama' not in 'MAPPOConfig'"),
        ("mappo", "~seed", "~seed: an option cannot be removed"),
        ("mappo", "actor=null", "field 'actor' is not Optional"),
        ("mappo", "actor=1", "Invalid type assigned"),
        ("mappo", "logger=null", "logger=null: expected one of csv, mlflow, tensorboard, wandb"),
        ("mappo", "task=null", "task=null: expected one of communication/cue, "),
        ("mappo", "network@actor=null", "network@actor=null: expected one of bicnet, "),
        ("qmix", "mixer=null", "mixer=null: expected one of none, qmix, qplex, vdn"),
        ("mappo", "max_grad_norm=inf", "max_grad_norm=inf: expected a finite number"),
        ("mappo", "lr=nan", "lr=nan: expected a finite number"),
        ("mappo", "actor.out_gain=nan", "actor.out_gain=nan: expected a finite number"),
        ("qmix", "replay.alpha=inf", "replay.alpha=inf: expected"),
        ("mappo", "total_frames=1e30", "total_frames=1000000000000000019884624838656: expected a number up to"),
        ("mappo", "evaluation.episodes=99999999999999999999", "evaluation.episodes=99999999999999999999: expected"),
        ("mappo", "task.max_steps=99999999999999999999", "task.max_steps=99999999999999999999: expected"),
        ("mappo", "actor.num_cells=[99999999999999999999]", "actor.num_cells[0]=99999999999999999999: expected"),
        ("qmix", "mixer.embed_dim=99999999999999999999", "mixer.embed_dim=99999999999999999999: expected"),
        ("mappo", "task.params.n_agents=99999999999999999999", "task.params.n_agents=99999999999999999999: expected"),
        ("mappo", "anneal_lr=2", "anneal_lr=2: expected true or false"),
        ("mappo", "actor.layer_norm=3", "actor.layer_norm=3: expected true or false"),
        ("qmix", "mixer.monotonic=false", "mixer.monotonic=false: here agents choose by their own values"),
        ("pqn", "+mixer.monotonic=false", "options need no plus sign"),
    ],
)
def test_one_line_and_no_directory(recipe: str, argument: str, message: str, tmp_path: Path) -> None:
    assert_one_line(call_here(tmp_path, recipe, argument), message, program=f"ctde-{recipe}")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(("given", "frames"), [("1e6", 1_000_000), ("2.5e3", 2_500), ("12", 12)])
def test_whole_numbers_may_have_an_exponent(given: str, frames: int) -> None:
    from ctde_kit.recipes.commands.short_forms import expand

    assert composed("mappo", *expand(f"total_frames={given}")).total_frames == frames
