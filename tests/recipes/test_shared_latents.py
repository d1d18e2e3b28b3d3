"""MASAC with mutual information: what is collected, stored, evaluated, exported and played against."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torchrl.envs.utils import ExplorationType, set_exploration_type

from ctde_kit.errors import UserError
from ctde_kit.recipes import (
    MatrixTask,
    RandomOpponent,
    RunOpponent,
    VariationalInformation,
    VmasTask,
    load,
    start,
)
from ctde_kit.testing import check_policy
from ctde_kit.training import iterate
from tests.recipes.command_line import call_here
from tests.recipes.resuming import advance
from tests.recipes.small_masac import small_masac_config

GAME = MatrixTask(n_envs=6)
INFORMATION = VariationalInformation(weight=0.3, latent_dim=3, latent_samples=2, num_cells=[9])
TAG: dict[str, Any] = {"name": "vmas/simple_tag", "n_envs": 4, "max_steps": 7, "groups_compete": True}
LITTLE = [
    "task=matrix/climbing",
    "task.n_envs=6",
    "frames_per_batch=60",
    "total_frames=240",
    "evaluation.every_frames=120",
    "evaluation.episodes=6",
    "replay.batch_size=8",
    "updates_per_frame=0.07",
    "actor.num_cells=[8]",
    "critic=centralized",
    "critic.network.num_cells=[8]",
    "compile=off",
    "device=cpu",
]


def test_without_it_a_run_is_masac_as_it_was_before_there_were_latents() -> None:
    parts = small_masac_config(compile="off", task=GAME).build()
    assert parts.policy.latent is None
    assert "latent" not in parts.update.losses["team"].stored_keys
    row = [iteration.metrics for iteration in iterate(parts)][-1]
    # Written down before. One random number more or less, anywhere, makes them others.
    before = {"loss_actor": 0.175161302, "loss_qvalue": 153.0572205, "loss_alpha": -0.0471511, "entropy": 1.09234440}
    assert {name: row[name] for name in before} == pytest.approx(before, rel=1e-4)
    assert torch.rand(1).item() == pytest.approx(0.890251696)


def test_latents_are_collected_and_replayed_and_evaluation_has_none() -> None:
    parts = small_masac_config(compile="off", task=GAME, mutual_information=INFORMATION).build()
    batch = parts.collector.rollout()
    assert batch["latent"].shape == (6, 10, 3)
    assert batch["latent"].unique().numel() == 6 * 10 * 3
    parts.buffer.extend(batch)
    replayed = parts.buffer.sample()["latent"]
    assert set(replayed.flatten().tolist()) <= set(batch["latent"].flatten().tolist())
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        assert parts.policy(batch[:, 0].clone())["latent"].eq(0).all()
    found = check_policy(parts.policy.actors["agents"], batch, group="agents")
    assert found["no_shared_latent_in_execution"].verdict == "passed"


def test_predictors_have_an_optimizer_group_and_are_saved() -> None:
    information = VariationalInformation(weight=0.3, num_cells=[9], lr=0.03)
    parts = small_masac_config(compile="off", task=GAME, mutual_information=information, critic_lr=1e-4).build()
    loss, groups = parts.update.losses["team"], parts.update.optimizer.param_groups
    assert groups[-1]["lr"] == 0.03
    assert {id(p) for p in groups[-1]["params"]} == {id(p) for p in loss.mutual_information.parameters()}
    before = [parameter.clone() for parameter in loss.mutual_information.parameters()]
    advance(parts, 1)
    after = [*loss.mutual_information.parameters()]
    assert all(not torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert any("mutual_information.predictors" in name for name in parts.update.state_dict()["update"]["losses"])


@pytest.mark.slow
def test_a_run_is_evaluated_exported_and_gone_on_with(tmp_path: Path, no_curves: None) -> None:
    options = ["mutual_information=variational", "mutual_information.latent_dim=3", "hydra.run.dir=run"]
    result = call_here(tmp_path, "masac", *LITTLE, *options)
    assert result.returncode == 0, result.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    result = call_here(tmp_path, "evaluate", "run", "output=again.json")
    assert result.returncode == 0, result.stderr
    again = json.loads((tmp_path / "again.json").read_text())["evaluations"][0]
    assert again["eval/return_mean"] == summary["eval/return_mean"]
    result = call_here(tmp_path, "export", "run", "format=pt2", "output=exported")
    assert result.returncode == 0, result.stderr
    resumed = call_here(tmp_path, "masac", "resume=run", "total_frames=300")
    assert resumed.returncode == 0, resumed.stderr
    policy: Any = load(tmp_path / "run").policy
    assert policy.actors["agents"].agent_network.inputs.latent_dim == 3


@pytest.mark.slow
def test_a_saved_policy_that_shared_a_latent_is_an_opponent_of_those_who_share_one(tmp_path: Path) -> None:
    task = VmasTask(**TAG, params={"num_good_agents": 2})
    options: dict[str, Any] = {"task": task, "compile": "off", "mutual_information": INFORMATION}
    start(small_masac_config(**options, opponents={"agent": RandomOpponent()}), tmp_path / "predators")
    parts = small_masac_config(**options, opponents={"adversary": RunOpponent(str(tmp_path / "predators"))}).build()
    batch = parts.collector.rollout()
    assert batch["latent"].ne(0).all()
    predators: Any = parts.policy.actors["adversary"]
    alone = predators(batch.select(*predators.in_keys).exclude("latent"))
    assert torch.equal(alone["adversary", "action"], batch["adversary", "action"])
    assert sum(iteration.metrics["num_updates"] for iteration in iterate(parts)) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": VmasTask(**TAG)}, "mutual_information: adversary and agent compete, and would share a latent"),
        (
            {"task": VmasTask(**TAG), "opponents": {"adversary": RandomOpponent()}},
            "mutual_information=variational: a single agent learns",
        ),
    ],
)
def test_teams_that_must_not_or_cannot_share_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        small_masac_config(mutual_information=INFORMATION, **options).build()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("weight", -0.1, "mutual_information.weight=-0.1: expected 0 or more"),
        ("latent_dim", 0, "mutual_information.latent_dim=0: expected a number above 0"),
        ("latent_samples", -1, "mutual_information.latent_samples=-1: expected 0 or more"),
        ("num_cells", [0], "mutual_information.num_cells[0]=0: expected a number above 0"),
        ("lr", 0.0, "mutual_information.lr=0.0: expected a number above 0"),
    ],
)
def test_mistakes_are_one_line(option: str, value: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        VariationalInformation(**{option: value})
    assert str(caught.value) == message
