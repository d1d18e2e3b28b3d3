"""Training that a broken policy, critic or memory misses by far, in seconds."""

from __future__ import annotations

import pytest
from torchrl.envs import InitTracker, TransformedEnv
from torchrl.envs.utils import ExplorationType

from ctde_kit.recipes import (
    EvaluationConfig,
    GRUNetwork,
    LoggerConfig,
    MAPPOConfig,
    MLPNetwork,
    RecallTask,
    ValueCriticConfig,
    VmasTask,
)
from ctde_kit.recipes.wiring.transforms import with_transforms
from ctde_kit.specs import TeamSpec
from ctde_kit.training import evaluate, iterate


def greedy_return(config: MAPPOConfig, episodes: int) -> float:
    parts = config.build()
    for _ in iterate(parts):
        pass
    team = TeamSpec.from_env(parts.collector.env)
    env = with_transforms(config.task.build(seed=9, device="cpu", n_envs=episodes), team, parts.policy)
    returns = evaluate(env, parts.policy, [group.name for group in team], episodes=episodes, seed=1_000_009)
    return returns.metrics()["return_mean"]


def recall_config(network: GRUNetwork | MLPNetwork) -> MAPPOConfig:
    return MAPPOConfig(
        task=RecallTask(n_envs=64, max_steps=6, params={"n_agents": 2, "n_cues": 4}),
        actor=network,
        critic=ValueCriticConfig(network=network),
        logger=LoggerConfig(),
        total_frames=9_216,
        frames_per_batch=1_536,
        minibatch_frames=384,
        lr=2e-3,
        device="cpu",
        evaluation=EvaluationConfig(),
    )


def test_gru_remembers_the_cue() -> None:
    assert greedy_return(recall_config(GRUNetwork(hidden_size=32, num_cells=[32])), 500) >= 0.95


def test_mlp_stays_at_chance() -> None:
    assert greedy_return(recall_config(MLPNetwork(num_cells=[32])), 500) == pytest.approx(0.25, abs=0.07)


def test_mappo_learns_navigation() -> None:
    config = MAPPOConfig(
        task=VmasTask(name="vmas/navigation", params={"n_agents": 3, "shared_rew": False}),
        actor=MLPNetwork(num_cells=[64, 64]),
        critic=ValueCriticConfig(network=MLPNetwork(num_cells=[64, 64])),
        logger=LoggerConfig(),
        total_frames=18_000,
        lr=1e-3,
        device="cpu",
    )
    assert greedy_return(config, 100) > 0.4  # a random policy gets -0.55


def test_random_policy_gets_the_known_return() -> None:
    task = VmasTask(name="vmas/navigation", params={"n_agents": 3, "shared_rew": False})
    env = TransformedEnv(task.build(seed=0, device="cpu", n_envs=500), InitTracker())
    returns = evaluate(env, env.rand_action, ["agents"], episodes=500, seed=3, exploration=ExplorationType.RANDOM)
    assert returns.metrics()["return_mean"] == pytest.approx(-0.55, abs=0.25)
