"""What a run without a terminal says."""

from __future__ import annotations

import pytest

from ctde_kit.training.reporting import progress
from ctde_kit.training.reporting.progress import ProgressLines, reporting_progress


def test_a_line_per_minute(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([1000.0, 1030.0, 1060.0, 1090.0, 1125.0, 1200.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with reporting_progress("lines", 100_000, 10_000) as report:
        assert isinstance(report, ProgressLines)
        for frames in (13_000, 16_000, 20_000, 29_000, 100_000):
            report(frames, "eval/return 0.50" if frames > 20_000 else "")
    # 6,000 frames in 60 s, 84,000 to go; then 13,000 in 65 s, 71,000 to go.
    assert capsys.readouterr().err == (
        "16000 of 100000 frames, 100 frames/s, 14 min left\n"
        "29000 of 100000 frames, 200 frames/s, eval/return 0.50, 6 min left\n"
    )


def test_hours(capsys: pytest.CaptureFixture) -> None:
    report = ProgressLines(1_000_000, 0, every=0.0)
    report._since -= 100.0
    report(10_000, "")
    assert capsys.readouterr().err.endswith("100 frames/s, 2 h 45 min left\n")


def test_none(capsys: pytest.CaptureFixture) -> None:
    with reporting_progress("none", 100, 0) as report:
        report(50, "")
    assert capsys.readouterr().err == ""
