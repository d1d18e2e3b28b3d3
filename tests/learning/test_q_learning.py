"""Q-learning that a broken mixer, target or memory misses by far, in seconds."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ctde_kit.recipes import (
    GRUNetwork,
    LoggerConfig,
    MLPNetwork,
    NStepReturns,
    PolyakTarget,
    QMIXConfig,
    QMixerConfig,
    QPLEXMixerConfig,
    RecallTask,
    ReplayConfig,
    SequenceForm,
    VDNMixerConfig,
)
from ctde_kit.recipes.wiring.transforms import with_transforms
from ctde_kit.specs import TeamSpec
from ctde_kit.training import evaluate
from tests.learning.matrix_games import CLIMBING, TWO_STEP, greedy_return, joint_values, matrix_config, train

# Discounted by 0.99: the second step's 7, or 8 for the best there.
START = torch.tensor([[6.93, 6.93], [7.92, 7.92]])


def first_and_slow(count: int, first: int = 1) -> list[Any]:
    """Seeds; all but the first ones are tried by ``nox -s slow``."""
    return [pytest.param(seed, marks=[pytest.mark.slow] * (seed >= first)) for seed in range(count)]


@pytest.mark.parametrize("seed", first_and_slow(5))
def test_qmix_finds_8_in_the_two_step_game_and_its_values_are_true(seed: int) -> None:
    parts = train(matrix_config(TWO_STEP, QMixerConfig(), seed=seed))
    assert greedy_return(parts) == 8.0
    torch.testing.assert_close(joint_values(parts, 0), START, rtol=0, atol=0.2)
    torch.testing.assert_close(joint_values(parts, 1), torch.full((2, 2), 7.0), rtol=0, atol=0.2)
    torch.testing.assert_close(joint_values(parts, 2), torch.tensor([[0.0, 1.0], [1.0, 8.0]]), rtol=0, atol=0.2)


@pytest.mark.slow
def test_vdn_cannot_represent_the_two_step_game_and_takes_7() -> None:
    assert greedy_return(train(matrix_config(TWO_STEP, VDNMixerConfig()))) == 7.0


def climbing_return(seed: int, total_frames: int = 10_000, lr: float = 3e-3) -> float:
    config = matrix_config(CLIMBING, QPLEXMixerConfig(), seed=seed, total_frames=total_frames, lr=lr)
    return greedy_return(train(config))


@pytest.mark.slow
def test_qplex_finds_the_best_of_the_climbing_game() -> None:
    assert climbing_return(0, total_frames=6_000, lr=4e-3) == 11.0


@pytest.mark.slow
def test_qplex_finds_the_best_of_the_climbing_game_with_most_seeds() -> None:
    returns = [climbing_return(seed) for seed in range(5)]
    assert returns.count(11.0) >= 4, returns


def recall_config(network: GRUNetwork | MLPNetwork, burn_in: int) -> QMIXConfig:
    options: dict[str, Any] = {"length": 12, "burn_in": burn_in}
    return QMIXConfig(
        task=RecallTask(n_envs=64, max_steps=6, params={"n_agents": 2, "n_cues": 4}),
        actor=network,
        mixer=QMixerConfig(),
        replay=ReplayConfig(form=SequenceForm(**options), batch_size=32, capacity=30_000),
        returns=NStepReturns(1),
        target=PolyakTarget(tau=0.02),
        logger=LoggerConfig(),
        device="cpu",
        total_frames=12_288,
        frames_per_batch=1_536,
        updates_per_frame=0.04,
        lr=3e-3,
        epsilon_frames=8_000,
    )


def share_of_right_answers(config: QMIXConfig) -> float:
    parts = train(config)
    team = TeamSpec.from_env(parts.collector.env)
    env = with_transforms(config.task.build(seed=9, device="cpu", n_envs=500), team, parts.policy)
    return evaluate(env, parts.policy, ["agents"], episodes=500, seed=1_000_009).metrics()["return_mean"]


@pytest.mark.slow
def test_gru_with_burn_in_remembers_the_cue() -> None:
    assert share_of_right_answers(recall_config(GRUNetwork(hidden_size=32, num_cells=[32]), burn_in=4)) >= 0.95


@pytest.mark.slow
def test_mlp_stays_at_chance() -> None:
    assert share_of_right_answers(recall_config(MLPNetwork(num_cells=[32]), burn_in=0)) == pytest.approx(0.25, abs=0.07)
