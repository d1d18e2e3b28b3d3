"""``ctde doctor``: tables, exit codes, mistakes in one line; and the page that has every rule."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

import pytest

from ctde_kit.recipes import COMAConfig, MAPPOConfig, VmasTask
from ctde_kit.recipes.commands.main import main
from ctde_kit.recipes.commands.running import start
from ctde_kit.testing.counterfactual_check import COUNTERFACTUAL_RULES
from ctde_kit.testing.deterministic_check import DETERMINISTIC_RULES
from ctde_kit.testing.env_check import ENV_RULES
from ctde_kit.testing.mixer_check import MIXER_RULES
from ctde_kit.testing.policy_check import POLICY_RULES
from ctde_kit.testing.policy_gradient_check import POLICY_GRADIENT_RULES
from ctde_kit.testing.sequential_check import TURN_RULES
from ctde_kit.testing.soft_actor_critic_check import SOFT_ACTOR_CRITIC_RULES
from ctde_kit.testing.state_check import STATE_RULES
from ctde_kit.testing.value_check import VALUE_RULES
from tests.testing.walk_env import WalkEnv


def doctor(*arguments: str) -> int:
    with mock.patch.object(sys, "argv", ["ctde", "doctor", *arguments]):
        try:
            main()
        except SystemExit as stop:
            return int(stop.code or 0)
    return 0


def test_a_task_that_breaks_no_rule(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor("task=communication/cue_groups") == 0
    shown = capsys.readouterr().out
    assert "agents_own_ends                       passed   team 50 ends" in shown
    assert shown.endswith("no rule is broken\n")


def test_skipped_rules_ask_for_nothing_that_the_command_cannot_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor("task=communication/cue") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "skipped episodes end by themselves, after up to 4 steps; there is no time limit A time limit" in shown
    assert "unseeded_copies skipped a run seeds every environment that it builds" in shown
    assert "give " not in shown


def test_a_broken_rule_is_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    with mock.patch.object(VmasTask, "build", return_value=WalkEnv(fault="limit terminates")):
        assert doctor("task=vmas/navigation", "task.max_steps=6") == 1
    shown = capsys.readouterr().out
    assert "time_limit_is_truncation              broken   after 6 steps, the time limit, 0 of" in shown
    assert shown.endswith("broken: 1\n")


def test_a_coma_run_breaks_no_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = VmasTask("vmas/simple_spread", n_envs=4, max_steps=6)
    start(COMAConfig(task=task, frames_per_batch=28, total_frames=28, epochs=1, device="cpu"), tmp_path / "run")
    capsys.readouterr()
    assert doctor(str(tmp_path / "run")) == 0, capsys.readouterr().out
    assert "check_counterfactual_loss: losses" in capsys.readouterr().out


def test_a_run_is_examined_as_its_checkpoint_left_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = VmasTask("vmas/simple_spread", n_envs=4, max_steps=6)
    config = MAPPOConfig(task=task, frames_per_batch=28, total_frames=28, minibatch_frames=14, epochs=1, device="cpu")
    start(config, tmp_path / "run")
    capsys.readouterr()
    assert doctor(str(tmp_path / "run")) == 0, capsys.readouterr().out
    shown = capsys.readouterr().out
    subjects = [line for line in shown.splitlines() if line.startswith("check_")]
    assert subjects == [
        "check_env: VmasEnv",
        "check_policy: MultiAgentActor",
        "check_state: MultiAgentActor",
        "check_policy_gradient_loss: MAPPOLoss",
    ]
    assert "after 6 steps, the time limit" in shown
    assert "greedy and sampled actions [4, 3, 2]" in shown
    assert "first ratios 1, off by" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["task=vmas/nothing"], "task=vmas/nothing: there is no such task"),
        ([], "nothing: expected task=NAME and options of the task, or one run directory"),
        (["task=vmas/navigation", "lr=1"], "lr=1: expected task=NAME and options of the task"),
        (["nowhere"], "nowhere: there is no such directory"),
        (["vmas/navigation"], "vmas/navigation: there is no such directory; did you mean task=vmas/navigation?"),
        (["vmas/navigatoin"], "vmas/navigatoin: there is no such directory; did you mean task=vmas/navigation?"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor(*arguments) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"ctde doctor: error: {message}")
    assert shown.count("\n") == 1


def test_the_page_has_every_rule() -> None:
    page = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text()
    tables = (
        ENV_RULES,
        POLICY_RULES,
        POLICY_GRADIENT_RULES,
        VALUE_RULES,
        DETERMINISTIC_RULES,
        SOFT_ACTOR_CRITIC_RULES,
        TURN_RULES,
        COUNTERFACTUAL_RULES,
        MIXER_RULES,
        STATE_RULES,
    )
    assert [rule.name for rules in tables for rule in rules if f"`{rule.name}`" not in page] == []
