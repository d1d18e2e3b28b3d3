"""The doctor finds nothing in HAPPO's turns, and finds what is broken on purpose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ctde_kit.objectives import HAPPOLoss
from ctde_kit.objectives.happo import AgentLearner
from ctde_kit.recipes.commands.running import start
from ctde_kit.testing import Report, check_policy_gradient_loss, check_sequential_update
from ctde_kit.training import Parts
from tests.objectives.happo.test_happo_loss import case
from tests.recipes.small_happo import small_happo_config
from tests.testing.test_doctor_command import doctor


def report_of(kind: str = "mlp", parts: Parts | None = None) -> Report:
    parts = parts or small_happo_config(kind).build()
    parts.buffer.extend(parts.prepare(next(iter(parts.collector))))
    return check_sequential_update(parts.update, parts.buffer.items, raises=False)


@pytest.mark.parametrize("kind", ["mlp", "gru"])
def test_the_doctor_finds_nothing(kind: str) -> None:
    parts = small_happo_config(kind).build()
    before = [parameter.clone() for parameter in parts.update.losses.parameters()]
    report = report_of(parts=parts)
    assert [finding.verdict for finding in report.findings] == ["passed"] * 4
    assert all(map(torch.equal, before, parts.update.losses.parameters()))
    assert not any(step.optimizer.state for step in parts.update.gradient_steps)


def test_products_that_are_not_passed_on_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HAPPOLoss, "pass_on", lambda self, batch, agent, later: None)
    assert [finding.rule for finding in report_of().broken] == ["product_is_of_those_before"]


def test_ratios_of_earlier_steps_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each agent gets the last ratio alone, instead of the product of all of them."""

    def last_alone(self: HAPPOLoss, batch: Any, agent: int, later: Any) -> None:
        learner = self.for_agent(agent)
        batch.get(self.tensor_keys.log_ratio_product)[..., list(later)] = learner.log_ratio(learner.select(batch))

    monkeypatch.setattr(HAPPOLoss, "pass_on", last_alone)
    assert [finding.rule for finding in report_of().broken] == ["product_is_of_those_before"]


def test_a_product_before_the_first_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = HAPPOLoss.begin

    def stale(self: HAPPOLoss, batch: Any) -> Any:
        begin(self, batch).get(self.tensor_keys.log_ratio_product).add_(0.1)
        return batch

    monkeypatch.setattr(HAPPOLoss, "begin", stale)
    broken = {finding.rule: finding.figure for finding in report_of().broken}
    assert "has a product 0.105 off 1" in broken["first_learner_is_on_policy"]


def test_agents_that_learn_copies_are_found() -> None:
    """Parameters that are not on the group's storage never reach the policy that acts."""
    parts = small_happo_config().build()
    for parameter in parts.update.gradient_steps[1].optimizer.param_groups[0]["params"]:
        parameter.data = parameter.data.clone()
    broken = {finding.rule: finding.figure for finding in report_of(parts=parts).broken}
    assert broken["agents_learn_alone"] == "agent 1's turn of 3 steps moves nothing in the policy that acts"


def test_an_agent_that_moves_another_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = small_happo_config().build()
    forward = AgentLearner.forward

    def leaking(self: AgentLearner, tensordict: Any) -> Any:
        with torch.no_grad():
            next(parts.update.losses["agents"].actor_network.parameters())[(self.agent + 1) % 3].mul_(1.1)
        return forward(self, tensordict)

    monkeypatch.setattr(AgentLearner, "forward", leaking)
    broken = {finding.rule: finding.figure for finding in report_of(parts=parts).broken}
    assert "turn moves another agent's log-probability by" in broken["agents_learn_alone"]


def test_turns_that_are_left_out_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "randperm", lambda n, **options: torch.tensor([0, 1, 1][:n]))
    broken = {finding.rule: finding.figure for finding in report_of().broken}
    assert "has the turns [0, 1, 1, None]" in broken["each_learner_has_one_turn"]


@pytest.mark.parametrize("kind", ["continuous", "categorical"])
def test_the_loss_of_the_whole_group_is_a_policy_gradient_loss(kind: str) -> None:
    """Dead agents change nothing, and the first ratio is 1."""
    loss, batch = case(kind)
    report = check_policy_gradient_loss(loss, loss.begin(batch))
    assert report["dead_agents_change_nothing"].verdict == report["first_ratio"].verdict == "passed"


def test_a_run_is_examined(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start(small_happo_config(total_frames=60), tmp_path / "run")
    assert doctor(str(tmp_path / "run")) == 0, capsys.readouterr().out
    shown = capsys.readouterr().out
    assert "check_policy_gradient_loss: HAPPOLoss" in shown
    assert "check_sequential_update: SequentialUpdate" in shown
