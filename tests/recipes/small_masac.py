"""MASAC configurations that train in a second."""

from __future__ import annotations

from typing import Any

from ctde_kit.recipes import (
    CheckpointConfig,
    EvaluationConfig,
    LoggerConfig,
    MASACConfig,
    NStepReturns,
    PolyakTarget,
    ReplayConfig,
    TDLambdaReturns,
    ValueCriticConfig,
    VmasTask,
)
from tests.recipes.small import network
from tests.recipes.small_q import FORMS


def small_masac_config(kind: str = "mlp", form: str = "transitions", **kwargs: Any) -> MASACConfig:
    """Batches of 10 steps, episodes of 7: they start in the middle of episodes; the replay wraps around."""
    continuous = kwargs.pop("continuous", True)
    params = {"n_agents": 2, "shared_rew": False}
    options: dict[str, Any] = {
        "task": VmasTask("vmas/navigation", n_envs=6, max_steps=7, continuous_actions=continuous, params=params),
        "actor": network(kind),
        "critic": ValueCriticConfig(network=network(kind)),
        "replay": ReplayConfig(form=FORMS[form](), **{"capacity": 130, "batch_size": 8, **kwargs.pop("replay", {})}),
        "returns": NStepReturns(1) if form == "transitions" else TDLambdaReturns(0.7),
        "target": PolyakTarget(tau=0.1),
        "logger": LoggerConfig(),
        "total_frames": 240,
        "frames_per_batch": 60,
        "updates_per_frame": 0.07,
        "device": "cpu",
        "evaluation": EvaluationConfig(every_frames=120, episodes=4),
        "checkpoint": CheckpointConfig(every_frames=60),
    }
    return MASACConfig(**{**options, **kwargs})
