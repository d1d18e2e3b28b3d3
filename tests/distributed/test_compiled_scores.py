"""The steps of a population's scores are compiled where there are many of them, and the scores stay the same."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ctde_kit.distributed import Meetings
from ctde_kit.recipes import OneProcess, SyncConfig, start_population
from ctde_kit.recipes.wiring import membership
from ctde_kit.recipes.wiring.membership import Member
from ctde_kit.recipes.wiring.population_directory import PopulationDirectory
from tests.distributed.populations import LossyProcesses, content, small_population
from tests.recipes.resuming import same

pytestmark = pytest.mark.usefixtures("no_curves")


@pytest.mark.parametrize(
    ("sync", "most_exchanges"),
    [
        ({"every": 600}, 10),
        ({"every": 600, "end_every": 300}, 20),
        ({"every": 10}, 100),  # one per iteration of 60 frames
        ({"every": 600, "unit": "updates"}, 100),
    ],
)
def test_steps_of_all_scores_are_counted(
    sync: dict[str, Any], most_exchanges: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    monkeypatch.setattr(membership, "compile_steps", lambda env, compile, steps: counted.append(steps))
    config = replace(small_population(total_frames=6_000), distributed=OneProcess())
    parts = config.build()
    member = Member(config, 0, SyncConfig(what="best_critic", episodes=4, **sync), Meetings())
    member._score(parts)
    member.conclude(parts)
    steps = config.task.episode_steps
    assert counted == [most_exchanges * steps, steps]


def train(path: Path, losses: list[tuple[str, int]]) -> None:
    """A population of two that exchanges critics after each iteration but the last."""
    config = small_population(sync={"every": 60})
    start_population(config, path, processes=partial(LossyProcesses, losses))


@pytest.mark.slow
def test_compiled_scores_are_the_eager_ones_also_where_members_start_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eager, unbroken, resumed = (tmp_path / name for name in ("eager", "unbroken", "resumed"))
    train(eager, [])
    monkeypatch.setattr(membership, "compile_option", lambda config: "on")
    train(unbroken, [])
    losses = [("member 1 of 2", 3)]
    train(resumed, losses)
    assert not losses
    ours, theirs = (PopulationDirectory(path).exchanges() for path in (unbroken, eager))
    assert len(ours) == 2
    for one, other in zip(ours, theirs, strict=True):
        assert one["best"] == other["best"]
        for (_, score), (_, eager_score) in zip(
            one["scores"]["return_mean"], other["scores"]["return_mean"], strict=True
        ):
            assert score == pytest.approx(eager_score, abs=1e-4)
    assert PopulationDirectory(resumed).exchanges() == ours
    for rank in range(2):
        ends = [content(path / "members" / str(rank)) for path in (resumed, unbroken)]
        for part in ("parts", "random", "on_iteration"):
            assert same(ends[0][part], ends[1][part]), (rank, part)
