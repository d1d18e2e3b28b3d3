"""Collectors in other processes: the numbers of a local one, delays, resuming, and lost processes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from tensordict import TensorDictBase

from ctde_kit.collectors import RolloutCollector
from ctde_kit.errors import UserError, WorkerError
from tests.distributed.versioned import N_ENVS, STEPS, VERSION, collector, fragile, learn, rollouts

SLOW = pytest.mark.slow
LOSSES = [(1, 1), (4, 0), (5, 0), (5, 1)]


def assert_same(found: Sequence[TensorDictBase], expected: Sequence[TensorDictBase]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert {*one.keys(True, True)} == {*other.keys(True, True)}
        assert all(torch.equal(one[key], other[key]) for key in other.keys(True, True))
        assert one["agents"].batch_size == other["agents"].batch_size


def versions(batches: Sequence[TensorDictBase]) -> list[float]:
    for batch in batches:
        assert batch[VERSION].unique().numel() == 1
    return [batch[VERSION].flatten()[0].item() for batch in batches]


def test_one_collector_equals_one_in_this_process() -> None:
    torch.manual_seed(3)
    expected = learn(collector(0), 5)
    after = torch.rand(3)
    torch.manual_seed(3)
    found = learn(rollouts(1), 5)
    assert_same(found, expected)
    assert torch.equal(torch.rand(3), after)


def test_rows_stand_in_the_order_of_ranks_and_differ() -> None:
    batches, again = (learn(rollouts(3), 2) for _ in range(2))
    assert_same(batches, again)
    assert batches[0].shape == (3 * N_ENVS, STEPS)
    alone = collector(1)
    first = alone.env.reset()["agents", "observation"]
    assert torch.equal(batches[0]["agents", "observation"][N_ENVS : 2 * N_ENVS, 0], first)
    rows = batches[0]["agents", "action"].split(N_ENVS)
    assert not any(torch.equal(rows[i], rows[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize("delay", [0, pytest.param(1, marks=SLOW), 2])
def test_a_batch_has_the_weights_of_delay_iterations_ago(delay: int) -> None:
    assert versions(learn(rollouts(2, delay=delay), 6)) == [max(0, t - delay) for t in range(6)]


@pytest.mark.parametrize("delay", [0, 2])
def test_it_stops_at_total_frames_and_asks_for_no_more(delay: int) -> None:
    one = rollouts(2, batches=3, delay=delay)
    assert len(list(one)) == 3
    assert one.frames == one.total_frames == 3 * 2 * N_ENVS * STEPS
    assert not one.state_dict()["in_flight"]


@pytest.mark.parametrize("delay", [0, pytest.param(1, marks=SLOW), 2])
def test_a_state_in_the_middle_goes_on_as_if_unbroken(delay: int) -> None:
    unbroken = rollouts(2, delay=delay)
    learn(unbroken, 3)
    state, random = unbroken.state_dict(), torch.get_rng_state()
    expected = learn(unbroken, 4)
    resumed = rollouts(2, delay=delay)
    with torch.no_grad():
        resumed.policy.version.fill_(3)
    resumed.load_state_dict(state)
    torch.set_rng_state(random)
    assert resumed.frames == 3 * 2 * N_ENVS * STEPS
    assert_same(learn(resumed, 4), expected)


def test_a_state_survives_a_checkpoint_file(tmp_path: Path) -> None:
    one = rollouts(2, delay=1)
    learn(one, 2)
    torch.save(one.state_dict(), tmp_path / "state.pt")
    read = torch.load(tmp_path / "state.pt", weights_only=True)
    other = rollouts(2, delay=1)
    other.load_state_dict(read)
    with torch.no_grad():
        other.policy.version.fill_(2)
    assert_same(learn(other, 2), learn(one, 2))


def test_a_state_of_another_layout_is_refused() -> None:
    one = rollouts(2)
    learn(one, 1)
    with pytest.raises(UserError, match="the state is one of 2 collectors"):
        rollouts(3).load_state_dict(one.state_dict())


@pytest.mark.parametrize(("call", "delay"), [(1, 0), (4, 1), *(pytest.param(*case, marks=SLOW) for case in LOSSES)])
def test_a_lost_process_changes_nothing(call: int, delay: int, caplog: pytest.LogCaptureFixture) -> None:
    expected = learn(rollouts(2, delay=delay), 5)
    torch.manual_seed(0)
    with caplog.at_level(logging.WARNING, "ctde_kit"):
        found = learn(rollouts(2, delay=delay, processes=fragile(call)), 5)
    assert_same(found, expected)
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.endswith("was lost: it goes on from its last state (restart 1 of 3)")


def test_episodes_begin_anew_where_a_state_cannot_be_captured(caplog: pytest.LogCaptureFixture) -> None:
    whole = learn(rollouts(1, make=uncaptured), 3)
    with caplog.at_level(logging.WARNING, "ctde_kit"):
        found = learn(rollouts(1, make=uncaptured, processes=fragile(3)), 3)
    assert "begins new episodes (restart 1 of 3)" in caplog.text
    assert_same(found[:2], whole[:2])
    starts = [batches[k]["agents", "observation"][:, 0] for batches, k in ((found, 2), (whole, 2), (whole, 0))]
    assert not torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


def uncaptured(rank: int) -> RolloutCollector:
    one = collector(rank)
    one.env.state_is_captured = False
    return one


def test_a_process_that_is_lost_again_and_again_ends_the_run() -> None:
    with pytest.raises(WorkerError, match="collector 2 of 2 was lost; restarts=1 allows no further one"):
        learn(rollouts(2, processes=fragile(2, 3, 4, 5), restarts=1), 3)


@pytest.mark.parametrize("options", [{"collectors": 0}, {"delay": -1}, {"restarts": -1}])
def test_numbers_out_of_range_are_named(options: dict[str, int]) -> None:
    ((name, value),) = options.items()
    with pytest.raises(UserError, match=f"{name}={value}.*: expected at least"):
        rollouts(**{"collectors": 1, **options})
