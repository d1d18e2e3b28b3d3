"""Learners that share every gradient step, in threads: their weights, frames, schedules and states."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from ctde_kit.distributed import Learners
from ctde_kit.errors import UserError
from ctde_kit.recipes import MAPPOConfig, RayDistribution
from ctde_kit.training import Parts, iterate, load_parts, read_checkpoint, save_checkpoint, stateful_parts
from tests.distributed.threads import ThreadProcesses
from tests.recipes.resuming import same
from tests.recipes.small import NORMALIZED, small_config
from tests.recipes.small_maddpg import small_maddpg_config

PAIR: dict[str, Any] = {"distributed": RayDistribution(learners=2), "frames_per_batch": 120, "total_frames": 600}


def built(config: Any) -> Parts:
    """The parts of rank 0, whose other learners are threads."""
    parts = config.build()
    assert isinstance(parts.collector, Learners)
    parts.collector._open = ThreadProcesses
    return parts


def states(parts: Parts) -> list[dict[str, Any]]:
    """Of what all learners have in common, by rank."""
    collector = parts.collector.state_dict()
    mine = {name: part.state_dict() for name, part in stateful_parts(parts).items() if name != "collector"}
    return [{name: of[name] for name in mine if name != "buffer"} for of in (mine, collector["learners"][0]["parts"])]


@pytest.mark.parametrize("recipe", ["mappo", "maddpg"])
def test_all_have_the_same_weights_statistics_and_schedules(recipe: str) -> None:
    if recipe == "mappo":
        config = small_config(**PAIR, normalize_observations=True, epochs=1, anneal_lr=True)
    else:
        config = small_maddpg_config(**PAIR, anneal_lr=True)
    parts = built(config)
    frames = []
    for iteration in iterate(parts):
        frames.append(iteration.frames)
        assert iteration.batch.numel() == 60
        if len(frames) == 3:
            break
    assert frames == [120, 240, 360]
    ours, theirs = states(parts)
    rate = ours["update"]["optimizer"] if "optimizer" in ours["update"] else ours["update"]["update"]["optimizer"]
    assert 0 < rate["param_groups"][0]["lr"] < 0.7 * config.lr
    for name in ours:
        assert same(ours[name], theirs[name]), name
    parts.collector.shutdown()


def test_it_ends_at_total_frames_of_all() -> None:
    parts = built(small_config(**PAIR, epochs=1))
    assert [iteration.frames for iteration in iterate(parts)] == [120, 240, 360, 480, 600]
    parts.collector.shutdown()


def test_a_checkpoint_brings_every_learner_back(tmp_path: Any) -> None:
    config = small_config(**PAIR, epochs=1, **{**NORMALIZED, "normalize_observations": False})
    parts = built(config)
    loop = iterate(parts)
    for _ in range(2):
        next(loop)
    save_checkpoint(tmp_path / "frames_240.pt", parts, algorithm="mappo", frames=240)
    expected = parts.collector.state_dict()
    parts.collector.shutdown()
    other = built(config)
    assert load_parts(read_checkpoint(tmp_path / "frames_240.pt", algorithm="mappo"), other) == 240
    assert other.collector.frames == 240
    other.collector.join(other)
    assert same(other.collector.state_dict(), expected)
    other.collector.shutdown()


def test_without_iterate_they_have_not_met() -> None:
    with pytest.raises(UserError, match=r"train in iterate\(parts\)"):
        next(iter(built(small_config(**PAIR)).collector))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learners": 2, "collectors": 2}, "distributed.learners=2: .*leave out distributed.collectors"),
        ({"members": 2, "delay": 1}, "distributed.members=2: .*leave out distributed.delay"),
        ({"members": 2, "learners": 2}, "distributed.members=2: .*leave out distributed.learners"),
        ({"learners": 0}, "distributed.learners=0"),
    ],
)
def test_layouts_that_do_not_go_together_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        RayDistribution(**options)


def test_frames_per_batch_is_that_of_all() -> None:
    with pytest.raises(UserError, match="frames_per_batch=126: expected a multiple of the 12 environments of all 2"):
        dataclasses.replace(small_config(**PAIR), frames_per_batch=126, minibatch_frames=21).build()
    assert MAPPOConfig(distributed=RayDistribution(learners=3)).distributed.n_collectors == 3


def test_learners_that_collect_unequal_batches_are_refused() -> None:
    parts = built(small_config(**PAIR, epochs=1))
    make = parts.collector.make

    def fewer(rank: int) -> Parts:
        made = make(rank)
        made.collector.length //= 2
        return made

    parts.collector.make = fewer
    with pytest.raises(UserError, match="Learners: between 30 and 60 frames were collected by each"):
        next(iterate(parts))
    parts.collector.shutdown()


def test_one_learner_is_no_team() -> None:
    config = small_config(epochs=1)
    with pytest.raises(UserError, match="Learners: learners=1: expected at least 2"):
        Learners(config.build().collector, lambda rank: config.build(), processes=ThreadProcesses, learners=1)
    assert torch.is_grad_enabled()


def test_the_error_of_another_learner_is_this_ones_too() -> None:
    config = small_config(**PAIR, epochs=1)
    parts = built(config)
    make = parts.collector.make

    def broken(rank: int) -> Parts:
        def prepare(batch: Any) -> Any:
            raise UserError("this learner cannot go on")

        return dataclasses.replace(make(rank), prepare=prepare)

    parts.collector.make = broken
    with pytest.raises(UserError, match="this learner cannot go on"):
        next(iterate(parts))
    parts.collector.shutdown()


def test_a_learner_that_cannot_be_built_says_why() -> None:
    parts = built(small_config(**PAIR, epochs=1))

    def unbuildable(rank: int) -> Parts:
        raise UserError("no such environment there")

    parts.collector.make = unbuildable
    with pytest.raises(UserError, match="no such environment there"):
        next(iterate(parts))
    parts.collector.shutdown()


def test_schedules_of_more_frames_hold_for_all_learners(tmp_path: Any) -> None:
    config = small_config(**PAIR, epochs=1, anneal_lr=True)
    parts = built(config)
    for _ in iterate(parts):
        pass
    save_checkpoint(tmp_path / "frames_600.pt", parts, algorithm="mappo", frames=600)
    parts.collector.shutdown()
    longer = built(dataclasses.replace(config, total_frames=1200))
    longer.anneal(load_parts(read_checkpoint(tmp_path / "frames_600.pt", algorithm="mappo"), longer))
    next(iterate(longer))
    ours, theirs = states(longer)
    assert ours["update"]["optimizer"]["param_groups"][0]["lr"] > 0
    assert same(ours["update"], theirs["update"])
    longer.collector.shutdown()
