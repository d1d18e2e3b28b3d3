"""The COMA recipe: its updates in their order, every part of its runs, stopped and gone on with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torchrl.envs.utils import ExplorationType, set_exploration_type

from ctde_kit.errors import NotFiniteError, UserError
from ctde_kit.recipes import (
    CounterfactualCriticConfig,
    HardTarget,
    LbfTask,
    NStepReturns,
    PettingZooTask,
    PolyakTarget,
    RandomOpponent,
    ValueCriticConfig,
    VmasTask,
)
from ctde_kit.recipes.commands.loading import load
from ctde_kit.training import iterate
from tests.recipes.command_line import assert_one_line, call_here
from tests.recipes.resuming import Build, advance, check_resumed_equals_uninterrupted
from tests.recipes.small import NORMALIZED, network, small_config
from tests.recipes.small_coma import small_coma_config
from tests.recipes.test_maddpg_command_line import SMALL

OWN_FIRST = CounterfactualCriticConfig(ordering="own_first", network=network("mlp"))
EACH_ITS_OWN = CounterfactualCriticConfig(average_every=3, network=network("mlp", share_params=False))
BUILDS: dict[str, Build] = {
    "mlp": lambda: small_coma_config(critic_lr=1e-2, anneal_lr=True, entropy_coeff=0.01).build(),
    "gru": lambda: small_coma_config("gru", minibatch_frames=None).build(),
    "normalized": lambda: small_coma_config(critic=OWN_FIRST, target=PolyakTarget(tau=0.1), **NORMALIZED).build(),
    "averages": lambda: small_coma_config(critic=EACH_ITS_OWN, returns=NStepReturns(2)).build(),
}
SLOW = ("normalized", "averages")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in BUILDS])
def test_resumed_run_equals_the_run_that_never_stopped(name: str, tmp_path: Path) -> None:
    check_resumed_equals_uninterrupted(BUILDS[name], "coma", tmp_path / "c.pt")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mlp", "gru"])
def test_compiled_updates_are_the_eager_ones(kind: str, graphs: None) -> None:
    results = []
    for compiled in (True, False):
        torch.manual_seed(0)
        parts = small_coma_config(kind, compile="off", entropy_coeff=0.01).build()
        steps: list[Any] = [parts.update.critic.update, parts.update.actor]
        for step in steps:
            step.compile = compiled
        metrics = [iteration.metrics for iteration in iterate(parts)]
        assert [bool(step._compiled) for step in steps] == [compiled] * 2
        assert [step.compile for step in steps] == [compiled] * 2
        results.append(([parameter.detach() for step in steps for parameter in step.parameters], metrics))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(results[0][1], results[1][1], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4)


def test_critics_learn_first_and_actors_once_by_the_critics_that_have_learned() -> None:
    parts = small_coma_config().build()
    update: Any = parts.update
    batch = next(iter(parts.collector))
    parts.buffer.extend(parts.prepare(batch))
    actors, critics = ([p.clone() for p in part.parameters()] for part in (parts.policy, update.critic.losses))
    rows: list[Any] = []
    expected = torch.zeros(())
    for metrics in parts.update_schedule(parts.buffer, update):
        rows.append(metrics)
        moved = any(not torch.equal(a, b) for a, b in zip(actors, parts.policy.parameters(), strict=True))
        assert moved is (len(rows) == 7)
        if len(rows) == 6:
            expected = update.actor.losses["agents"](parts.buffer.items)["advantage"]
            critics = [p.clone() for p in update.critic.losses.parameters()]
    assert ["loss_qvalue" in row for row in rows] == [True] * 6 + [False]
    assert "grad_norm_critic" in rows[0]
    assert "grad_norm_actor" in rows[-1]
    assert torch.equal(rows[-1]["advantage"], expected)
    assert all(torch.equal(a, b) for a, b in zip(critics, update.critic.losses.parameters(), strict=True))


def test_metrics_are_means_over_the_updates_that_gave_them() -> None:
    parts = small_coma_config().build()
    rows: list[Any] = []
    schedule = parts.update_schedule
    object.__setattr__(parts, "update_schedule", lambda *given: (rows.append(row) or row for row in schedule(*given)))
    metrics = next(iterate(parts)).metrics
    assert metrics["num_updates"] == 7
    assert metrics["td_error"] == pytest.approx(float(torch.stack([row["td_error"] for row in rows[:6]]).mean()))
    assert metrics["entropy"] == pytest.approx(float(rows[6]["entropy"]))


def test_a_loss_that_is_not_finite_is_named_with_its_update() -> None:
    parts = small_coma_config(entropy_coeff=0.1).build()
    parts.update.actor.losses["agents"].entropy_coeff = float("nan")
    with pytest.raises(NotFiniteError, match=r"loss_entropy is nan in update 7 of 7 at 60 frames"):
        next(iterate(parts))


def test_the_target_critic_is_copied_at_its_steps_and_targets_are_computed_from_it() -> None:
    parts = small_coma_config(target=HardTarget(every=12)).build()
    loss: Any = parts.update.critic.losses["agents"]
    pairs = [*zip(loss.target_networks.parameters(), loss.critic_network.parameters(), strict=True)]
    advance(parts, 1)
    assert all(not torch.equal(*pair) for pair in pairs)
    advance(parts, 1)
    assert all(torch.equal(*pair) for pair in pairs)


def test_epsilon_falls_with_the_frames_is_saved_and_is_not_in_evaluation() -> None:
    parts = small_coma_config(epsilon_start=0.5, epsilon_end=0.1).build()
    epsilon = parts.policy.actors["agents"].floor.epsilon
    assert epsilon == 0.5
    advance(parts, 1)
    assert epsilon == pytest.approx(0.5 - 0.4 * 60 / 200)
    assert any(name.endswith("floor.epsilon") for name in parts.policy.state_dict())
    data = parts.collector.env.reset()
    for kind, alike in ((ExplorationType.DETERMINISTIC, True), (ExplorationType.RANDOM, False)):
        with set_exploration_type(kind):
            first, second = (parts.policy(data.copy())["agents", "action"] for _ in range(2))
        assert torch.equal(first, second) is alike


@pytest.mark.parametrize(
    ("option", "value", "where"),
    [
        ("value_loss", "huber", "critic.losses.agents.value_loss"),
        ("huber_delta", 0.4, "critic.losses.agents.huber_delta"),
        ("entropy_coeff", 0.3, "actor.losses.agents.entropy_coeff"),
        ("max_grad_norm", 0.7, "actor.max_grad_norm"),
        ("max_grad_norm", 0.7, "critic.update.max_grad_norm"),
    ],
)
def test_options_reach_the_losses(option: str, value: Any, where: str) -> None:
    part: Any = small_coma_config(**{option: value}).build().update
    for name in where.split("."):
        part = part[name] if isinstance(part, torch.nn.ModuleDict) else getattr(part, name)
    assert part == value


@pytest.mark.parametrize(("option", "value"), [("gamma", 0.77), ("returns", NStepReturns(3)), ("team_reward", "sum")])
def test_options_reach_the_targets(option: str, value: Any) -> None:
    *_, targets = small_coma_config(**{option: value}).build().prepare
    expected = value.build() if option == "returns" else value
    reward, *_ = small_coma_config(**{option: value}).build().prepare
    assert (reward.reduction if option == "team_reward" else getattr(targets, option)) == expected


@pytest.mark.parametrize(
    "options",
    [
        {
            "task": LbfTask(name="lbf", env_id="Foraging-8x8-2p-2f-coop-v3", n_envs=4, n_workers=1, max_steps=7),
            "kind": "gru",
        },
        {
            "task": PettingZooTask(
                name="listener",
                env="mpe2/simple_speaker_listener_v4",
                n_envs=4,
                n_workers=1,
                max_steps=7,
                groups_compete=False,
                params={"max_cycles": 7},
            )
        },
        {
            "task": VmasTask(name="vmas/simple_tag", n_envs=4, max_steps=7, groups_compete=True),
            "opponents": {"agent": RandomOpponent()},
        },
    ],
    ids=["action masks", "groups of a team", "an opponent"],
)
def test_masks_groups_and_opponents_train(options: dict[str, Any]) -> None:
    parts = small_coma_config(**options).build()
    metrics = [iteration.metrics for iteration in iterate(parts)]
    assert [row["num_updates"] for row in metrics] == [7] * 4
    groups = list(parts.update.actor.losses)
    for name in ("loss_actor", "grad_norm_actor", "loss_qvalue", "grad_norm_critic"):
        assert all((f"{group}/{name}" if len(groups) > 1 else name) in metrics[-1] for group in groups)
    parts.collector.shutdown()


def test_the_recipe_runs_and_goes_on(tmp_path: Path, no_curves: None) -> None:
    options = [one for one in SMALL if not one.startswith(("replay.", "updates_per_frame", "target."))]
    options += ["task.continuous_actions=false", "critic.sees=agent_state", "critic.build_state=true"]
    result = call_here(tmp_path, "coma", *options, "actor.num_cells=[8]", "total_frames=120", "hydra.run.dir=run")
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["algorithm"] == "coma"
    resumed = call_here(tmp_path, "coma", "resume=run", "total_frames=180")
    assert resumed.returncode == 0, resumed.stderr
    assert load(tmp_path / "run").frames == 180


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: small_coma_config(critic=ValueCriticConfig()),
            "algorithm=coma: expected critic=counterfactual (from Python critic=CounterfactualCriticConfig()), found "
            "ValueCriticConfig",
        ),
        (
            lambda: small_config(critic=CounterfactualCriticConfig()).build(),
            "critic=counterfactual: this recipe learns values of states",
        ),
        (
            lambda: small_coma_config(
                task=VmasTask(name="vmas/simple_tag", n_envs=4, max_steps=7, groups_compete=True)
            ).build(),
            "team_reward: adversary, agent compete in vmas/simple_tag, so no single value serves all; let one of them",
        ),
        (lambda: CounterfactualCriticConfig(sees="observation"), "critic.sees=observation: expected one of team"),
        (lambda: CounterfactualCriticConfig(ordering="random"), "critic.ordering=random: expected one of fixed"),
        (lambda: CounterfactualCriticConfig(build_state=True), "critic.build_state=true: it is for critic=agent"),
        (lambda: CounterfactualCriticConfig(network=network("gru", agent_id=True)), "expected a feed-forward network"),
        (lambda: CounterfactualCriticConfig(network=network("mlp")), "critic.network.agent_id=false: agents that"),
        (lambda: small_coma_config(epsilon_start=1.5), "epsilon_start=1.5: expected a ratio"),
        (lambda: small_coma_config(minibatch_frames=100), "minibatch_frames=100: expected at most"),
    ],
)
def test_mistakes_are_one_line(make: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        make()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_mistakes_on_the_command_line_are_one_line(tmp_path: Path) -> None:
    result = call_here(tmp_path, "coma", "critic=centralized", "total_frames=6000")
    assert_one_line(result, "it does not fit ctde-coma; choose counterfactual", program="ctde-coma")
