"""The program that runs BenchMARL chooses the better setting, keeps what has ended, and stops in time."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.programs.benchmarks import benchmarl_suite

Run = tuple[str, str, dict[str, Any]]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """Every run that the program starts; its last return is 10 times the learning rate's exponent, plus the seed."""
    started: list[Run] = []

    def train(algorithm: str, task: str, **options: Any) -> tuple[list[dict[str, Any]], float]:
        started.append((algorithm, task, options))
        steps = {"step_1": {"step_count": 300_000, "return": [float(f"{options['lr']:e}"[-3:]) * 10 + options["seed"]]}}
        content = {"vmas": {task: {algorithm: {f"seed_{options['seed']}": steps}}}}
        options["output"].write_text(json.dumps(content))
        return [], 1.0

    monkeypatch.setattr(benchmarl_suite, "benchmarl", train)
    return started


def test_reported_seeds_run_with_the_setting_that_ended_higher_with_the_tuning_seed(
    runs: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["suite", str(tmp_path), "--tasks", "balance", "--algorithms", "mappo", "qmix"])
    benchmarl_suite.main()
    told = json.loads((tmp_path / "chosen.json").read_text())["balance"]
    assert told["mappo"]["returns"] == {"fine_tuned": -50.0, "few_frames": -40.0}
    assert told["mappo"]["chosen"] == told["qmix"]["chosen"] == "few_frames"
    assert [(a, o["seed"], o["lr"]) for a, _, o in runs if o["seed"] >= 100] == [
        (algorithm, seed, 3e-4) for seed in (100, 101, 102) for algorithm in ("mappo", "qmix")
    ]
    frames = {o["iterations"] * o.get("frames_per_batch", 6000) for _, _, o in runs}
    assert frames == {300_000}
    count = len(runs)
    benchmarl_suite.main()
    assert len(runs) == count, "a run that had ended was repeated"


def test_no_run_starts_after_the_minutes_are_over(
    runs: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["suite", str(tmp_path), "--minutes", "0"])
    monkeypatch.setattr(benchmarl_suite.time, "monotonic", iter([0.0, 1.0]).__next__)
    benchmarl_suite.main()
    assert not runs
