"""Agents that hear each other win the cue game in seconds; without a channel they guess."""

from __future__ import annotations

from typing import Any

import pytest

from ctde_kit.recipes import (
    BiCNetNetwork,
    CommNetNetwork,
    CueTask,
    LoggerConfig,
    MAPPOConfig,
    MLPNetwork,
    NStepReturns,
    PolyakTarget,
    QMIXConfig,
    ReplayConfig,
    TarMACNetwork,
    TransitionForm,
    ValueCriticConfig,
    VDNMixerConfig,
)
from ctde_kit.recipes.wiring.transforms import with_transforms
from ctde_kit.specs import TeamSpec
from ctde_kit.training import evaluate, iterate
from tests.learning.test_short_runs import greedy_return

PLAIN = MLPNetwork(num_cells=[32, 32])
TASK: dict[str, Any] = {"n_envs": 60, "params": {"n_agents": 3, "n_goals": 4}}


def mappo_config(network: Any, frames: int, two_groups: bool = False) -> MAPPOConfig:
    return MAPPOConfig(
        task=CueTask(two_groups=two_groups, **TASK),
        actor=network,
        critic=ValueCriticConfig(network=PLAIN),
        logger=LoggerConfig(),
        total_frames=frames,
        frames_per_batch=1_200,
        lr=3e-3,
        device="cpu",
    )


def qmix_return(network: Any, frames: int) -> float:
    config = QMIXConfig(
        task=CueTask(**TASK),
        actor=network,
        mixer=VDNMixerConfig(),
        replay=ReplayConfig(form=TransitionForm(), batch_size=128, capacity=10_000),
        returns=NStepReturns(1),
        target=PolyakTarget(tau=0.05),
        logger=LoggerConfig(),
        device="cpu",
        total_frames=frames,
        frames_per_batch=600,
        updates_per_frame=0.05,
        lr=3e-3,
        epsilon_frames=3_000,
    )
    parts = config.build()
    for _ in iterate(parts):
        pass
    team = TeamSpec.from_env(parts.collector.env)
    env = with_transforms(config.task.build(seed=9, device="cpu", n_envs=500), team, parts.policy)
    return evaluate(env, parts.policy, ["agents"], episodes=500, seed=1_000_009).metrics()["return_mean"]


@pytest.mark.parametrize("network", [pytest.param(BiCNetNetwork, marks=pytest.mark.slow), TarMACNetwork])
def test_mappo_with_a_channel_wins(network: Any) -> None:
    assert greedy_return(mappo_config(network(hidden_size=32, num_cells=[32]), 6_000), 500) >= 0.95


def test_mappo_without_a_channel_guesses() -> None:
    assert greedy_return(mappo_config(PLAIN, 6_000), 500) == pytest.approx(0.25, abs=0.07)


@pytest.mark.parametrize("across_groups", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_channel_that_crosses_groups_wins_where_speaker_and_listeners_are_groups(across_groups: bool) -> None:
    network = CommNetNetwork(hidden_size=32, num_cells=[32], across_groups=across_groups)
    found = greedy_return(mappo_config(network, 6_000, two_groups=True), 500)
    assert found >= 0.95 if across_groups else found == pytest.approx(0.25, abs=0.07)


@pytest.mark.slow
def test_qmix_with_a_channel_wins() -> None:
    assert qmix_return(CommNetNetwork(hidden_size=32, num_cells=[32], encoder="mlp"), 6_000) >= 0.95
