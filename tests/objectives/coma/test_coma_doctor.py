"""The doctor finds nothing in COMA's losses and targets, and finds what is broken on purpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ctde_kit.objectives import COMAActorLoss, COMATargets
from ctde_kit.objectives.coma import coma_actor_loss
from ctde_kit.testing import check_counterfactual_loss
from tests.objectives.coma.cases import GAMMA, herd, make, rollout

Advantage = Callable[[Tensor, Tensor, Tensor], Tensor]


def examine(
    kind: str = "categorical",
    change: Callable[[Any], None] = lambda targets: None,
    prepare: Callable[[Any], None] = lambda batch: None,
) -> Any:
    torch.manual_seed(0)
    team = herd(kind)
    policy, losses = make(team)
    actor: Any = policy.actors["wolves"]
    critic_loss = losses["wolves"]
    actor_loss = COMAActorLoss(actor, critic_loss.critic_network, entropy_coeff=0.1)
    targets = COMATargets(policy, losses, gamma=GAMMA)
    change(critic_loss)
    batch = rollout(team, policy)
    prepare(batch)

    def both(batch: Any) -> dict[str, Tensor]:
        return {**critic_loss(batch), **actor_loss(batch)}

    return check_counterfactual_loss(
        both,
        batch,
        critic=critic_loss.critic_network,
        actor=actor,
        estimator=targets,
        group="wolves",
        keys={"reward": "reward"},
        raises=False,
    )


@pytest.mark.parametrize("kind", ["categorical", "one_hot"])
def test_the_doctor_finds_nothing(kind: str) -> None:
    report = examine(kind)
    assert not report.broken, report
    skipped = [finding.rule for finding in report.findings if finding.verdict == "skipped"]
    assert skipped == ["padding_changes_nothing"]


def without_baseline(values: Tensor, probability: Tensor, index: Tensor) -> Tensor:
    return values.gather(-1, index.unsqueeze(-1)).squeeze(-1)


def of_all_choices(values: Tensor, probability: Tensor, index: Tensor) -> Tensor:
    return without_baseline(values, probability, index) - values.mean(-1)


def wrong_sign(values: Tensor, probability: Tensor, index: Tensor) -> Tensor:
    return (probability * values).sum(-1) - without_baseline(values, probability, index)


@pytest.mark.parametrize(
    ("advantage", "rule"),
    [
        (without_baseline, "common_value_cancels"),
        (of_all_choices, "forbidden_values_change_nothing"),
        (wrong_sign, "counterfactual_advantage_is_followed"),
    ],
)
def test_other_baselines_are_found(advantage: Advantage, rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coma_actor_loss, "counterfactual_advantage", advantage)
    assert rule in [finding.rule for finding in examine().broken]


def test_the_doctor_finds_nothing_where_all_did_the_same() -> None:
    def same(batch: Any) -> None:
        for group in ("wolves", "sheep"):
            batch[group, "action"].zero_()

    assert not examine(prepare=same).broken


def test_a_critic_that_sees_the_own_action_is_found() -> None:
    def show(loss: Any) -> None:
        loss.critic_network.agent_network.inputs.hidden = None

    assert [finding.rule for finding in examine(change=show).broken] == ["own_action_is_hidden"]


def test_a_critic_that_sees_no_action_is_found() -> None:
    def hide(loss: Any) -> None:
        hidden = loss.critic_network.agent_network.inputs.hidden
        hidden[:, -5 * 6 :] = True

    assert "own_action_is_hidden" in [finding.rule for finding in examine(change=hide).broken]


def test_targets_that_do_not_bootstrap_time_limits_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    following = COMATargets._following

    def at_the_end(self: Any, batch: Any) -> Any:
        batch["next", "terminated"] = batch["next", "terminated"] | batch["next", "done"]
        return following(self, batch)

    monkeypatch.setattr(COMATargets, "_following", at_the_end)
    assert "truncated_advantage_bootstraps" in [finding.rule for finding in examine().broken]
