"""Learners that share agents, in threads, against one process: weights, rows, checkpoints, and what they refuse."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import torch
from tensordict import TensorDictBase
from torch.utils._pytree import tree_leaves

from ctde_kit.distributed import AgentLearners
from ctde_kit.distributed.dealt_agents import deal
from ctde_kit.distributed.shard_rollouts import ShardRollouts
from ctde_kit.errors import UserError
from ctde_kit.recipes import (
    MADDPGConfig,
    MAPPOConfig,
    MLPNetwork,
    OneProcess,
    PettingZooTask,
    QMixerConfig,
    RayDistribution,
    ValueCriticConfig,
)
from ctde_kit.training import (
    Parts,
    iterate,
    load_parts,
    random_state,
    read_checkpoint,
    restore_random_state,
    save_checkpoint,
    stateful_parts,
)
from tests.distributed.threads import TurnProcesses
from tests.recipes.resuming import same
from tests.recipes.small_maddpg import small_maddpg_config
from tests.recipes.small_masac import small_masac_config

CONFIGS = {
    "maddpg": lambda **options: small_maddpg_config(**options),
    "discrete": lambda **options: small_maddpg_config(continuous=False, **options),
    "recurrent": lambda **options: small_maddpg_config("gru", "sequences", **options),
    "prioritized": lambda **options: small_maddpg_config(replay={"prioritized": True}, **options),
    "matd3": lambda **options: small_maddpg_config(
        twin_critics=True, smoothing_deviation=0.2, policy_every=2, **options
    ),
    "normalized": lambda **options: small_maddpg_config(normalize_observations=True, normalize_rewards=True, **options),
    "random orders of numbered agents": lambda **options: small_maddpg_config(
        critic=ValueCriticConfig(ordering="random", network=MLPNetwork(num_cells=[8], agent_id=True)), **options
    ),
    "masac": lambda **options: small_masac_config(**options),
}


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> TurnProcesses:
    return TurnProcesses(monkeypatch)


def shared(name: str, processes: TurnProcesses, collect: str = "each", **options: Any) -> Parts:
    """The parts of rank 0 of two learners."""
    parts = CONFIGS[name](distributed=RayDistribution(learners=2, by="agent", collect=collect), **options).build()
    assert isinstance(parts.collector, AgentLearners)
    parts.collector._open = lambda: processes
    return parts


def weights(parts: Parts) -> list[torch.Tensor]:
    leaves = tree_leaves({name: part.state_dict() for name, part in stateful_parts(parts).items()})
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]


@pytest.mark.parametrize("collect", ["each", "first"])
@pytest.mark.parametrize("name", [*CONFIGS])
def test_a_run_has_the_numbers_of_one_process(name: str, collect: str, processes: TurnProcesses) -> None:
    alone = CONFIGS[name](distributed=OneProcess(), compile="off").build()
    expected = list(iterate(alone))
    stream = random_state()
    together = shared(name, processes, collect, compile="off")
    found = list(iterate(together))
    assert [iteration.frames for iteration in found] == [iteration.frames for iteration in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.metrics == pytest.approx(theirs.metrics, rel=1e-3, abs=1e-5)
    assert same(random_state()["torch"], stream["torch"])
    for ours, theirs in zip(weights(together), weights(alone), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    together.collector.shutdown()


@pytest.mark.parametrize("collect", ["each", "first"])
@pytest.mark.parametrize("learners", ["one process", "two learners"])
def test_a_checkpoint_is_one_of_any_number_of_learners(
    learners: str, collect: str, processes: TurnProcesses, tmp_path: Any
) -> None:
    parts = shared("maddpg", processes, collect)
    loop = iterate(parts)
    for _ in range(2):
        next(loop)
    save_checkpoint(tmp_path / "frames_120.pt", parts, algorithm="maddpg", frames=120)
    streams = random_state()
    rest = [iteration.metrics for iteration in loop]
    parts.collector.shutdown()

    content = read_checkpoint(tmp_path / "frames_120.pt", algorithm="maddpg")
    again = small_maddpg_config().build() if learners == "one process" else shared("maddpg", processes, collect)
    again.anneal(load_parts(content, again))
    restore_random_state(streams)
    resumed = [iteration.metrics for iteration in iterate(again)]
    tolerance = {"rel": 1e-3, "abs": 1e-5} if learners == "one process" else {"rel": 0, "abs": 0}
    for ours, theirs in zip(resumed, rest, strict=True):
        assert ours == pytest.approx(theirs, **tolerance)
    again.collector.shutdown()


def test_what_is_loaded_between_batches_reaches_all(processes: TurnProcesses, tmp_path: Any) -> None:
    parts = shared("maddpg", processes, total_frames=360)
    loop = iterate(parts)
    next(loop)
    save_checkpoint(tmp_path / "frames_60.pt", parts, algorithm="maddpg", frames=60)
    streams = random_state()
    first = [next(loop).metrics for _ in range(2)]
    parts.anneal(load_parts(read_checkpoint(tmp_path / "frames_60.pt", algorithm="maddpg"), parts))
    restore_random_state(streams)
    assert [next(loop).metrics for _ in range(2)] == first
    parts.collector.shutdown()


class Rounded(ShardRollouts):
    """As on a machine that rounds otherwise."""

    def __iter__(self) -> Iterator[TensorDictBase]:
        for batch in super().__iter__():
            batch["next", "agents", "reward"][0, 3, 1] += 1e-6
            yield batch


def test_other_batches_are_noticed_before_anything_is_learned(processes: TurnProcesses) -> None:
    parts = shared("maddpg", processes)
    make, before = parts.collector.make, deepcopy(parts.update.state_dict())

    def otherwise() -> Parts:
        other = make()
        return dataclasses.replace(other, collector=Rounded(other.collector, 1))

    parts.collector.make = otherwise
    with pytest.raises(UserError, match=r"collected different batches up to 60 frames.*collect='first'"):
        next(iterate(parts))
    assert same(parts.update.state_dict(), before)
    parts.collector.shutdown()


def test_each_collects_only_where_states_of_envs_can_be_read() -> None:
    task = PettingZooTask("pettingzoo/simple_spread", n_envs=2, n_workers=1, continuous_actions=True)
    config = MADDPGConfig(task=task, frames_per_batch=100, distributed=RayDistribution(learners=2, by="agent"))
    with pytest.raises(UserError, match=r"the state of this env cannot be read.*collect='first'"):
        config.build()


def test_the_others_have_the_threads_of_the_first() -> None:
    parts = small_maddpg_config(distributed=RayDistribution(learners=2, by="agent"), threads=2).build()
    assert parts.collector.threads == 1
    (config, rank) = parts.collector.make.args
    assert config.threads is None, "building would set them again"
    assert rank == 0


def test_learners_that_cannot_meet_say_so_again(processes: TurnProcesses) -> None:
    parts = shared("maddpg", processes)
    parts.collector.learners = 3
    for _ in range(2):
        with pytest.raises(UserError, match="learners=3: expected at most one per agent"):
            next(iterate(parts))
    assert not processes.hosted
    parts.collector.shutdown()


def test_agents_are_dealt_evenly() -> None:
    dealt = deal({"adversary": 3, "agent": 2}, 3)
    counts = [[own[name].stop - own[name].start for name in own] for own in dealt]
    assert counts == [[1, 0], [2, 0], [0, 2]]
    for name, count in {"adversary": 3, "agent": 2}.items():
        assert [agent for own in dealt for agent in range(count)[own[name]]] == [*range(count)]


def test_there_are_no_more_learners_than_agents(processes: TurnProcesses) -> None:
    parts = small_maddpg_config(distributed=RayDistribution(learners=3, by="agent")).build()
    parts.collector._open = lambda: processes
    with pytest.raises(UserError, match="learners=3: expected at most one per agent that learns, 2"):
        next(iterate(parts))
    parts.collector.shutdown()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "team"}, "distributed.by=team"),
        ({"by": "agent"}, "give distributed.learners=2"),
        ({"learners": 2, "collect": "first"}, "distributed.collect=first: .*give distributed.by=agent"),
        ({"learners": 2, "by": "agent", "collect": "last"}, "distributed.collect=last"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        RayDistribution(**options)


@pytest.mark.parametrize(
    ("recipe", "options"),
    [(MAPPOConfig, {}), (MADDPGConfig, {"mixer": QMixerConfig()}), (MADDPGConfig, {"infer_policies": True})],
)
def test_what_agents_learn_together_is_not_shared_by_agent(recipe: Any, options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"distributed\.by=agent: .*learns something for all agents together"):
        recipe(distributed=RayDistribution(learners=2, by="agent"), **deepcopy(options))
