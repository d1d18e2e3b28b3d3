"""The MASAC recipes: every part of their runs, stopped and gone on with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchrl.envs.utils import ExplorationType, set_exploration_type

from ctde_kit.errors import UserError
from ctde_kit.recipes import (
    HardTarget,
    PettingZooTask,
    RandomOpponent,
    ValueCriticConfig,
    VariationalInformation,
    VmasTask,
)
from ctde_kit.recipes.commands.loading import load
from ctde_kit.training import iterate
from tests.recipes.command_line import assert_one_line, call_here
from tests.recipes.resuming import Build, advance, check_resumed_equals_uninterrupted
from tests.recipes.small import NORMALIZED, averaged, network
from tests.recipes.small_masac import small_masac_config
from tests.recipes.test_maddpg_command_line import SMALL

OWN = ValueCriticConfig(sees="observation", network=network("mlp"))
INFORMATION = VariationalInformation(weight=0.3, latent_dim=3, latent_samples=2, num_cells=[9])
BUILDS: dict[str, Build] = {
    "transitions": lambda: small_masac_config(share_alpha=False, alpha_lr=0.1, anneal_lr=True).build(),
    "discrete": lambda: small_masac_config(
        continuous=False, other_actions="current", replay={"prioritized": True}, **NORMALIZED
    ).build(),
    "sequences": lambda: small_masac_config("gru", "sequences").build(),
    "episodes": lambda: small_masac_config("gru", "episodes", continuous=False, target=HardTarget(every=3)).build(),
    "information": lambda: small_masac_config(mutual_information=INFORMATION, compile="off").build(),
    "information sequences": lambda: small_masac_config(
        "gru", "sequences", continuous=False, mutual_information=INFORMATION, **NORMALIZED
    ).build(),
    "averages": lambda: small_masac_config(critic=averaged(3), twin_critics=False).build(),
}
SLOW = ("discrete", "sequences", "episodes", "information", "information sequences", "averages")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in BUILDS])
def test_resumed_run_equals_the_run_that_never_stopped(name: str, tmp_path: Path) -> None:
    check_resumed_equals_uninterrupted(BUILDS[name], "masac", tmp_path / "c.pt")


def test_temperatures_learn_at_a_rate_of_their_own_and_are_kept() -> None:
    parts = small_masac_config(alpha_init=0.3, alpha_lr=0.1, lr=1e-3, critic_lr=1e-4).build()
    loss, groups = parts.update.losses["team"], parts.update.optimizer.param_groups
    assert [group["lr"] for group in groups] == [1e-3, 1e-4, 0.1]
    assert {id(p) for p in groups[0]["params"]} == {id(p) for p in loss.actors.parameters()}
    critics = [*loss.critics.parameters(), *loss.twin_critics.parameters()]
    assert {id(p) for p in groups[1]["params"]} == {id(p) for p in critics}
    log_alpha = loss.temperatures["agents"].log_alpha
    assert log_alpha.exp().item() == pytest.approx(0.3)
    advance(parts, 1)
    # Entropy is above its target, -2, so alpha falls: by Adam's step of the learning rate, four times.
    assert log_alpha.item() == pytest.approx(np.log(0.3) - 0.4, abs=0.02)
    assert "losses.team.temperatures.agents.log_alpha" in flat(parts.update.state_dict())


def flat(state: Any, prefix: str = "") -> set[str]:
    """The dotted names of all leaves, ``update`` and ``rules`` left out."""
    if not isinstance(state, dict):
        return {prefix.removesuffix(".")}
    names = set()
    for name, value in state.items():
        names |= flat(value, prefix if name in ("update", "losses") and not prefix else f"{prefix}{name}.")
    return names | {f"losses.{name}" for name in names}


def test_a_fixed_temperature_stays() -> None:
    parts = advance(small_masac_config(alpha_init=0.3, fixed_alpha=True).build(), 2)
    loss = parts.update.losses["team"]
    assert loss.temperatures["agents"]().item() == pytest.approx(0.3)
    assert len(parts.update.optimizer.param_groups) == 2


def test_target_critics_alone_follow() -> None:
    parts = small_masac_config().build()
    loss = parts.update.losses["team"]
    assert set(loss.target_networks.keys()) == {"critic_agents", "twin_critic_agents"}
    before = [parameter.clone() for parameter in loss.target_networks.parameters()]
    advance(parts, 1)
    assert all(not torch.equal(a, b) for a, b in zip(before, loss.target_networks.parameters(), strict=True))


def test_evaluation_is_greedy_and_collection_is_not() -> None:
    parts = small_masac_config().build()
    data = parts.collector.env.reset()
    for kind, alike in ((ExplorationType.DETERMINISTIC, True), (ExplorationType.RANDOM, False)):
        with set_exploration_type(kind):
            first, second = (parts.policy(data.copy())["agents", "action"] for _ in range(2))
        assert torch.equal(first, second) is alike


@pytest.mark.parametrize(
    ("option", "value", "where"),
    [
        ("gamma", 0.77, "gamma"),
        ("other_actions", "current", "other_actions"),
        ("team_weight", 0.3, "team_weight"),
        ("value_loss", "huber", "value_loss"),
        ("huber_delta", 0.4, "huber_delta"),
        ("target_entropy", -3.0, "temperatures.agents.target_entropy"),
        ("target_entropy_weight", 0.5, "temperatures.agents.target_entropy_weight"),
        ("twin_critics", False, "twin_critics"),
    ],
)
def test_options_reach_the_loss(option: str, value: Any, where: str) -> None:
    loss: Any = small_masac_config(**{option: value}).build().update.losses["team"]
    for name in where.split("."):
        loss = loss[name] if isinstance(loss, torch.nn.ModuleDict) else getattr(loss, name)
    assert loss == (None if option == "twin_critics" else value)


@pytest.mark.parametrize(
    "options",
    [
        {
            "task": PettingZooTask(
                name="tag",
                env="mpe2/simple_tag_v3",
                n_envs=4,
                n_workers=1,
                max_steps=7,
                groups_compete=True,
                params={"max_cycles": 7},
            )
        },
        {
            "task": VmasTask(name="vmas/simple_tag", n_envs=4, max_steps=7, groups_compete=True),
            "opponents": {"agent": RandomOpponent()},
        },
    ],
    ids=["discrete groups", "an opponent"],
)
def test_groups_and_opponents_train(options: dict[str, Any]) -> None:
    parts = small_masac_config(**options).build()
    metrics = [iteration.metrics for iteration in iterate(parts)]
    assert sum(row["num_updates"] for row in metrics) == 16
    assert metrics[-1]["grad_norm"] > 0
    assert ("adversary/entropy" in metrics[-1]) is ("opponents" not in options)
    parts.collector.shutdown()


@pytest.mark.parametrize("recipe", ["masac", "isac"])
def test_each_recipe_runs_and_says_which_it_is(recipe: str, tmp_path: Path, no_curves: None) -> None:
    result = call_here(tmp_path, recipe, *SMALL, "actor.num_cells=[8]", "total_frames=120", "hydra.run.dir=run")
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["algorithm"] == recipe
    resumed = call_here(tmp_path, recipe, "resume=run", "total_frames=180")
    assert resumed.returncode == 0, resumed.stderr
    assert load(tmp_path / "run").frames == 180


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: small_masac_config(critic=OWN, other_actions="current").build(), "other_actions=current: these"),
        (lambda: small_masac_config(target_entropy_weight=1.5), "target_entropy_weight=1.5: expected a ratio"),
        (
            lambda: small_masac_config(algorithm="isac"),
            "from Python critic=ValueCriticConfig(sees='observation')), found critic.sees=team",
        ),
        (lambda: small_masac_config(alpha_init=0.0), "alpha_init=0.0: expected a number above 0"),
        (lambda: small_masac_config(target_entropy_weight=-1.0), "target_entropy_weight=-1.0"),
        (lambda: small_masac_config(team_weight=1.5), "team_weight=1.5: expected a ratio"),
        (lambda: small_masac_config("mlp", "sequences").build(), "replay.form.burn_in: these networks"),
        (lambda: small_masac_config("gru").build(), "replay=transitions: recurrent networks learn sequences; use"),
    ],
)
def test_mistakes_are_one_line(make: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        make()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_mistake_on_the_command_line_is_one_line(tmp_path: Path) -> None:
    result = call_here(tmp_path, "masac", "exploration=gaussian", "total_frames=6000")
    assert_one_line(result, "exploration=gaussian: ctde-masac has no exploration to choose", program="ctde-masac")
