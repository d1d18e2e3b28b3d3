"""The HAPPO recipe: who learns when, runs that are stopped and gone on with, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ctde_kit.errors import UserError
from ctde_kit.recipes import CommNetNetwork, HAPPOConfig, MLPNetwork, PettingZooTask, RandomOpponent, ValueCriticConfig
from ctde_kit.recipes.commands.loading import load
from ctde_kit.training import Epochs, SequentialUpdate, iterate
from tests.recipes.command_line import assert_one_line, call_here
from tests.recipes.resuming import Build, advance, check_resumed_equals_uninterrupted, weights
from tests.recipes.small import NORMALIZED, network
from tests.recipes.small_happo import small_happo_config

TAG: dict[str, Any] = {
    "task": PettingZooTask(
        name="tag",
        env="mpe2/simple_tag_v3",
        n_envs=4,
        n_workers=1,
        max_steps=7,
        groups_compete=True,
        params={"max_cycles": 7},
    ),
    "frames_per_batch": 40,
}
BUILDS: dict[str, Build] = {
    "mlp": lambda: small_happo_config(target_kl=0.02).build(),
    "gru": lambda: small_happo_config("gru", **NORMALIZED).build(),
}


@pytest.mark.parametrize("name", ["mlp", pytest.param("gru", marks=pytest.mark.slow)])
def test_resumed_run_equals_the_run_that_never_stopped(name: str, tmp_path: Path) -> None:
    check_resumed_equals_uninterrupted(BUILDS[name], "happo", tmp_path / "c.pt")


@pytest.mark.parametrize("kind", ["mlp", "gru"])
def test_each_agent_has_its_turn_and_moves_alone(kind: str) -> None:
    parts = small_happo_config(kind, total_frames=360).build()
    actor, orders = parts.policy.learners["agents"], []
    for batch in parts.collector:
        parts.buffer.extend(parts.prepare(batch))
        order = []
        for turn in parts.update.turns(parts.buffer.items):
            before = [parameter.clone() for parameter in actor.parameters()]
            metrics = list(Epochs(2)(parts.buffer.of(turn.batch), parts.update))
            moved = [(old != new).flatten(1).any(1) for old, new in zip(before, actor.parameters(), strict=True)]
            assert [row.tolist() for row in moved] == [[agent == turn.agent for agent in range(3)]] * len(moved)
            assert ("loss_critic" in metrics[0]) is (turn.agent is None)
            if turn.agent is not None:
                assert abs(metrics[0]["approx_kl"]) < 1e-6  # its policy is still the one that acted
            order.append(turn.agent)
        assert order[-1] is None
        assert sorted(order[:-1]) == [0, 1, 2]
        orders.append(order[:-1])
    assert len({tuple(order) for order in orders}) > 1  # drawn anew for each of six batches


def test_an_agents_optimizer_is_its_own() -> None:
    parts = advance(small_happo_config().build(), 2)
    optimizers = [step.optimizer for step in parts.update.gradient_steps]
    assert len(optimizers) == 4
    owned = [{id(p) for group in optimizer.param_groups for p in group["params"]} for optimizer in optimizers]
    assert len(set.union(*owned)) == sum(map(len, owned))
    # Two passes over three minibatches, in two iterations.
    assert {state["step"].item() for one in optimizers for state in one.state.values()} == {12}
    assert {group["lr"] for one in optimizers for group in one.param_groups} == {5e-4}  # half of the frames


def test_saved_parameters_are_those_that_act() -> None:
    """The group's policy and the agents' views of it are one after loading, and moments are each agent's."""
    source, target = advance(small_happo_config().build(), 2), advance(small_happo_config(seed=1).build(), 1)
    target.update.load_state_dict(source.update.state_dict())
    assert torch.equal(weights(target), weights(source))
    whole = dict(target.policy.learners["agents"].named_parameters())
    for agent, optimizer in enumerate(step.optimizer for step in target.update.gradient_steps[:3]):
        for parameter, stacked in zip(optimizer.param_groups[0]["params"], whole.values(), strict=True):
            assert parameter.data_ptr() == stacked[agent].data_ptr()


@pytest.mark.slow
def test_compiled_updates_agree_with_eager_ones() -> None:
    found = [weights(advance(small_happo_config(compile=compile).build(), 2)) for compile in ("off", "on")]
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("options", [TAG, {**TAG, "opponents": {"agent": RandomOpponent()}}], ids=["groups", "alone"])
def test_groups_and_opponents_train(options: dict[str, Any]) -> None:
    parts = small_happo_config(**options, total_frames=80).build()
    metrics = [iteration.metrics for iteration in iterate(parts)]
    several = "opponents" not in options
    # Two passes over two minibatches for three predators and a critic, and for one prey and a critic.
    assert metrics[-1]["num_updates"] == (24 if several else 16)
    assert metrics[-1]["adversary/grad_norm_actor" if several else "grad_norm_actor"] > 0
    parts.collector.shutdown()


def test_a_step_without_a_turn_is_refused() -> None:
    parts = small_happo_config().build()
    assert isinstance(parts.update, SequentialUpdate)
    with pytest.raises(UserError, match="no learner has its turn"):
        parts.update(parts.prepare(next(iter(parts.collector))))


def test_turns_that_are_broken_off_leave_nobody_in_turn() -> None:
    parts = small_happo_config().build()
    assert isinstance(parts.update, SequentialUpdate)
    parts.buffer.extend(parts.prepare(next(iter(parts.collector))))
    turns = parts.update.turns(parts.buffer.items)
    batch = next(turns).batch
    turns.close()
    with pytest.raises(UserError, match="no learner has its turn"):
        parts.update(batch)


OWN = ValueCriticConfig(sees="observation", network=network("mlp"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HAPPOConfig(actor=MLPNetwork()), "expected actor.share_params=false, a policy of its own for each"),
        (lambda: HAPPOConfig(actor=MLPNetwork(share_params=[0, 1, 0])), "found MLPNetwork with share_params=[0, 1, 0]"),
        (lambda: HAPPOConfig(actor=CommNetNetwork()), "found CommNetNetwork with share_params=True"),
        (lambda: HAPPOConfig(critic=OWN), "one value per group"),
        (lambda: HAPPOConfig(critic=ValueCriticConfig()), "found critic.heads=agent"),
        (lambda: HAPPOConfig(normalize_advantage="agent"), "normalize_advantage=agent: expected one of joint, none"),
        (lambda: HAPPOConfig(algorithm="mappo"), "algorithm=mappo: expected one of happo"),
    ],
)
def test_mistakes_are_one_line(make: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        make()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


SMALL = ["task=matrix/climbing", "task.n_envs=10", "frames_per_batch=40", "minibatch_frames=20", "epochs=1"]


def test_the_command_trains_and_resumes(tmp_path: Path, no_curves: None) -> None:
    result = call_here(tmp_path, "happo", *SMALL, "evaluation.episodes=4", "total_frames=80", "hydra.run.dir=run")
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["algorithm"] == "happo"
    resumed = call_here(tmp_path, "happo", "resume=run", "total_frames=120")
    assert resumed.returncode == 0, resumed.stderr
    assert load(tmp_path / "run").frames == 120


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("actor.share_params=true", "expected actor.share_params=false"),
        ("network@actor=commnet", "actor.share_params: this recipe sets it, and commnet has no such option"),
        ("critic=attention", "critic=attention: it does not fit ctde-happo; choose one of centralized, state, or"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(option: str, message: str, tmp_path: Path) -> None:
    assert_one_line(call_here(tmp_path, "happo", *SMALL, option), message, program="ctde-happo")
