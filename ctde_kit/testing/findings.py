"""The doctor's rules and reports, and the error that names a broken rule."""

from __future__ import annotations

import random
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import numpy as np
import torch

from ctde_kit.errors import WorkerError, one_line
from ctde_kit.training.random_state import unchanged_random_state

Verdict = Literal["passed", "broken", "skipped"]
Case = TypeVar("Case", contravariant=True)
"""What a rule checks; a rule of a case also takes the cases that extend it."""


class RuleBroken(AssertionError):  # noqa: N818
    """A part breaks a rule; the message has a line for each broken rule, with its name and figure.

    Args:
        report: what all rules found.
    """

    def __init__(self, report: Report):
        self.report = report
        lines = [f"{finding.figure} (rule {finding.rule})" for finding in report.broken]
        super().__init__(f"{report.subject}: " + "\n".join(lines))


class Violation(Exception):  # noqa: N818
    """A rule is broken; the message is the figure."""


class NotApplicable(Exception):  # noqa: N818
    """A rule says nothing about this part; the message is the reason."""


@dataclass(frozen=True)
class Rule(Generic[Case]):
    """One property that a part must have.

    Args:
        name: in snake case.
        why: what goes wrong without it.
        check: case -> figure; raises ``Violation`` or ``NotApplicable``.
    """

    name: str
    why: str
    check: Callable[[Case], str]


def rule(why: str) -> Callable[[Callable[[Case], str]], Rule[Case]]:
    """Make a function of a case a ``Rule`` of the same name."""

    def make(check: Callable[[Case], str]) -> Rule[Case]:
        return Rule(part_name(check), why, check)

    return make


@dataclass(frozen=True)
class Finding:
    """What one rule found.

    Args:
        rule: its name.
        verdict: ``passed``, ``broken`` or ``skipped``.
        figure: what was measured, or why the rule was skipped.
        why: what goes wrong without the rule.

    >>> from ctde_kit.testing import Finding
    >>> Finding("first_ratio", "broken", "first ratio 1.21, expected 1", "The first update is off-policy.").verdict
    'broken'
    """

    rule: str
    verdict: Verdict
    figure: str
    why: str


@dataclass(frozen=True)
class Report:
    """What all rules found about one part; printed as a table.

    Args:
        subject: what was checked.
        findings: of each rule, in order.

    >>> from ctde_kit.testing import Finding, Report
    >>> finding = Finding("first_ratio", "passed", "first ratio 1", "The first update is off-policy.")
    >>> print(Report("loss", (finding,)))
    loss
      first_ratio  passed   first ratio 1
    """

    subject: str
    findings: tuple[Finding, ...]

    @property
    def broken(self) -> tuple[Finding, ...]:
        """The findings of the rules that are broken."""
        return tuple(finding for finding in self.findings if finding.verdict == "broken")

    def __getitem__(self, rule: str) -> Finding:
        """The finding of the rule of this name."""
        return next(finding for finding in self.findings if finding.rule == rule)

    def __str__(self) -> str:
        return self.table()

    def table(self, width: int = 100, why: bool = False) -> str:
        """A line per rule: name, verdict and figure; with ``why`` also the reason for the rule."""
        names = max((len(finding.rule) for finding in self.findings), default=0)
        indent = " " * (names + 4 + len("skipped") + 2)
        lines = [self.subject]
        for finding in self.findings:
            head = f"  {finding.rule:{names}}  {finding.verdict:7}  "
            lines += textwrap.wrap(head + finding.figure, max(width, len(head) + 40), subsequent_indent=indent)
            if why:
                deeper = " " * (names + 4)
                lines += textwrap.wrap(finding.why, max(width, 60), initial_indent=deeper, subsequent_indent=deeper)
        return "\n".join(lines)


def examine(subject: str, rules: Sequence[Rule[Case]], case: Case, raises: bool) -> Report:
    """Check ``case`` against each rule; the program's random state is restored afterwards.

    Raises:
        RuleBroken: with ``raises``, where a rule is broken.
        WorkerError: where a worker process of an env fails; nothing more can be tried on that env.
    """
    findings = []
    for each in rules:
        with drawing_from(0):
            findings.append(_finding(each, case))
    report = Report(subject, tuple(findings))
    if raises and report.broken:
        raise RuleBroken(report)
    return report


def part_name(part: object) -> str:
    """A function's own name, else that of the part's class."""
    return getattr(part, "__name__", type(part).__name__)


def _finding(checked: Rule[Case], case: Case) -> Finding:
    verdict: Verdict = "passed"
    try:
        figure = checked.check(case)
    except NotApplicable as reason:
        verdict, figure = "skipped", str(reason)
    except Violation as violation:
        verdict, figure = "broken", str(violation)
    except WorkerError:
        raise
    except Exception as error:  # whatever a foreign part raises
        line = one_line(error, 300)
        verdict, figure = "broken", f"raised {type(error).__name__}: {line}"
    return Finding(checked.name, verdict, figure, checked.why)


@contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """Inside the block the program's generators start from ``seed``; afterwards they are as before."""
    with unchanged_random_state():
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        yield
