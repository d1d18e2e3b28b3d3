"""Reports: tables, errors, and a program that is as before."""

from __future__ import annotations

import pytest
import torch

from ctde_kit.testing import Finding, Report, RuleBroken
from ctde_kit.testing.findings import NotApplicable, Violation, examine, rule


@rule("Because.")
def holds(case: int) -> str:
    return f"{case} is fine"


@rule("Because.")
def fails(case: int) -> str:
    raise Violation(f"{case}, expected 0")


@rule("Because.")
def skips(case: int) -> str:
    raise NotApplicable("nothing to see")


@rule("Because.")
def crashes(case: int) -> str:
    raise KeyError("agents")


def test_a_report_has_every_rule_and_the_error_names_the_broken_ones() -> None:
    with pytest.raises(RuleBroken) as caught:
        examine("part", (holds, fails, skips, crashes), 3, raises=True)
    assert str(caught.value) == "part: 3, expected 0 (rule fails)\nraised KeyError: 'agents' (rule crashes)"
    assert isinstance(caught.value, AssertionError)
    report = caught.value.report
    assert [finding.verdict for finding in report.findings] == ["passed", "broken", "skipped", "broken"]
    assert report["holds"] == Finding("holds", "passed", "3 is fine", "Because.")
    assert report.table().splitlines()[:2] == ["part", "  holds    passed   3 is fine"]
    assert report.table(why=True).count("Because.") == 4
    assert isinstance(examine("part", (holds,), 3, raises=True), Report)


def test_the_programs_random_numbers_are_as_before() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    examine("part", (rule("Because.")(lambda case: str(torch.rand(9))),), 0, raises=True)
    assert torch.equal(torch.rand(2), expected)
