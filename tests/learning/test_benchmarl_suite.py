"""The program that runs BenchMARL chooses the better setting, keeps what has ended, and stops in time."""

from __future__ import annotations

import json
import sys
from math import inf
from pathlib import Path
from typing import Any

import pytest

from tests.programs.benchmarks import benchmarl_suite
from tests.programs.benchmarks.benchmarl_suite import Suite
from tests.programs.learning.kept_runs import KeptRuns

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
    monkeypatch.setattr(benchmarl_suite.time, "monotonic", iter(range(100)).__next__)
    benchmarl_suite.main()
    assert not runs


def test_kept_runs_are_not_repeated_in_another_directory(runs: list[Run], tmp_path: Path) -> None:
    kept = KeptRuns(tmp_path)
    Suite(tmp_path / "first", inf, 1, kept).run(["balance"], ["qmix"])
    (tmp_path / "first" / "chosen.json").unlink()
    ended = {(curve.task, curve.label, curve.seed): curve.final for curve in kept.curves()}
    assert ended == {("vmas/balance", "qmix (benchmarl)", seed): seed - 40 for seed in (100, 101, 102)}
    count = len(runs)
    Suite(tmp_path / "second", inf, 1, kept).run(["balance"], ["qmix"])
    assert len(runs) == count
    Suite(tmp_path / "second", inf, 1, kept).run(["balance", "sampling"], ["qmix"])
    assert {task for _, task, _ in runs[count:]} == {"sampling"}
    assert json.loads((tmp_path / "vmas_small_benchmarl.json").read_text()).keys() == {"balance", "sampling"}


def test_two_runs_at_a_time_write_the_same(runs: list[Run], tmp_path: Path) -> None:
    for jobs in (1, 2):
        Suite(tmp_path / str(jobs), inf, jobs, None).run(["balance", "sampling"], ["mappo", "qmix"])
    one, two = (json.loads((tmp_path / str(jobs) / "chosen.json").read_text()) for jobs in (1, 2))
    assert one == two
    paths = [sorted(p.relative_to(tmp_path / jobs) for p in (tmp_path / jobs).rglob("*.json")) for jobs in ("1", "2")]
    assert paths[0] == paths[1]
    assert len(paths[0]) == 1 + 2 * 2 * 5
