"""COMA configurations that train in a second."""

from __future__ import annotations

from typing import Any

from ctde_kit.recipes import (
    CheckpointConfig,
    COMAConfig,
    CounterfactualCriticConfig,
    EvaluationConfig,
    HardTarget,
    LoggerConfig,
)
from tests.recipes.small import network
from tests.recipes.small_q import navigation


def small_coma_config(kind: str = "mlp", **kwargs: Any) -> COMAConfig:
    """Six envs, episodes of 7 steps, batches of 10 steps: batches start in the middle of episodes."""
    options: dict[str, Any] = {
        "task": navigation(),
        "actor": network(kind),
        "critic": CounterfactualCriticConfig(network=network("mlp", agent_id=True)),
        "target": HardTarget(every=5),
        "logger": LoggerConfig(),
        "total_frames": 240,
        "frames_per_batch": 60,
        "minibatch_frames": 20,
        "sequence_length": 5 if kind == "gru" else None,
        "epochs": 2,
        "epsilon_frames": 200,
        "device": "cpu",
        "evaluation": EvaluationConfig(every_frames=120, episodes=4),
        "checkpoint": CheckpointConfig(every_frames=60),
    }
    return COMAConfig(**{**options, **kwargs})
