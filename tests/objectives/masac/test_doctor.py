"""The doctor finds nothing in MASAC's loss, and finds what is broken on purpose."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ctde_kit.objectives.masac import group_policy
from ctde_kit.objectives.masac.own_actions import OwnActions
from ctde_kit.testing import check_soft_actor_critic_loss
from ctde_kit.testing.deterministic_case import DeterministicCase
from ctde_kit.testing.entry_names import EntryNames
from ctde_kit.testing.findings import examine
from ctde_kit.testing.soft_target_rules import targets_of_the_current_policy
from tests.objectives.masac.test_masac_loss import herd, make, transitions


@pytest.mark.parametrize("kind", ["continuous", "categorical"])
def test_the_doctor_finds_nothing(kind: str) -> None:
    team = herd(kind)
    loss, _, _, _ = make(team)
    batch = transitions(team)
    report = check_soft_actor_critic_loss(loss, batch, group="wolves", other_actions="replay")
    assert report["targets_of_the_current_policy"].verdict == "passed"
    # The expectation over discrete actions is exact: no gradient passes the critic, whose matrix says nothing then.
    assert report["own_actor_alone"].verdict == ("passed" if kind == "continuous" else "skipped")


def test_an_actor_may_learn_from_either_critic() -> None:
    team = herd("continuous")
    loss, _, _, _ = make(team)
    # The second critic's values are smaller, everywhere.
    list(loss.critics["wolves"].parameters())[-1].data.add_(100)
    report = check_soft_actor_critic_loss(loss, transitions(team), group="wolves", raises=False)
    assert report["own_actor_alone"].verdict == "passed"


def test_next_actions_of_the_replay_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    team = herd("continuous")
    loss, _, _, _ = make(team)
    own_actions = group_policy.own_actions

    def stale(spec: Any, dist: Any) -> Any:
        found = own_actions(spec, dist)
        if torch.is_grad_enabled():
            return found
        return OwnActions(torch.zeros_like(found.vector), found.probability, 0 * found.log_prob)

    monkeypatch.setattr(group_policy, "own_actions", stale)
    losses = {"actor_losses": ["loss_actor"], "value_losses": ["loss_qvalue"]}
    case = DeterministicCase(loss, transitions(team), EntryNames("wolves", None), **losses)
    report = examine("loss", (targets_of_the_current_policy,), case, False)
    assert "next actions are not its own" in report["targets_of_the_current_policy"].figure
