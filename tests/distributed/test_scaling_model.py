"""The model of how collectors scale, by hand."""

from __future__ import annotations

import pytest
import torch

from tests.programs.benchmarks import sleeping_env
from tests.programs.benchmarks.scaling_model import (
    Collector,
    Costs,
    batch_seconds,
    collectors_at_half,
    fit,
    frames_per_second,
)
from tests.programs.benchmarks.sleeping_env import N_ENVS, STEPS, build

ONE, COSTS = Collector(seconds=1.0, processor_seconds=0.25, frames=400), Costs(fixed=0.5, per_collector=0.125)


@pytest.mark.parametrize(
    ("n", "processors", "seconds"),
    [
        (4, None, 0.5 + 0.5 + 1.0),
        (4, 2, 0.5 + 0.5 + 1.0),  # 4 x 0.25 s of two processors are half a second
        (8, 2, 0.5 + 1.0 + 1.0),  # just as long as one collector's steps
        (16, 2, 0.5 + 2.0 + 2.0),
        (16, None, 0.5 + 2.0 + 1.0),
    ],
)
def test_seconds_and_frames_per_second(n: int, processors: int | None, seconds: float) -> None:
    assert batch_seconds(n, ONE, COSTS, processors) == seconds
    assert frames_per_second(n, ONE, COSTS, processors) == pytest.approx(n * 400 / seconds)


def test_where_messages_take_half_of_the_time() -> None:
    n = collectors_at_half(ONE, COSTS)
    assert n == 12
    assert batch_seconds(n, ONE, COSTS, None) == 2 * COSTS.per_collector * n


def test_a_line_is_found_and_noise_is_averaged() -> None:
    found = fit([1, 2, 4], [0.625, 0.75, 1.0])
    assert (found.fixed, found.per_collector) == (pytest.approx(0.5), pytest.approx(0.125))
    # Mean of the counts 2, of the seconds 3; slope ((-1)(-2) + (1)(2)) / ((-1)(-1) + (1)(1)) = 2.
    found = fit([1, 2, 3, 2], [1, 5, 5, 1])
    assert (found.fixed, found.per_collector) == (pytest.approx(-1), pytest.approx(2))


def test_the_env_sleeps_for_as_long_as_the_policy_says(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(sleeping_env.time, "sleep", slept.append)
    collector = build()
    policy = collector.policy
    with torch.no_grad():
        policy.seconds.fill_(0.002)
    batch = next(iter(collector))
    assert slept == pytest.approx([0.002] * STEPS)
    assert batch.shape == (N_ENVS, STEPS)
    assert batch["agents", "action"].unique().tolist() == pytest.approx([0.002])
