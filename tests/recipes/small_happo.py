"""HAPPO configurations that train in a second."""

from __future__ import annotations

from typing import Any

from ctde_kit.recipes import HAPPOConfig, ValueCriticConfig, VmasTask
from tests.recipes.small import network, small_config


def small_happo_config(kind: str = "mlp", **kwargs: Any) -> HAPPOConfig:
    """Three agents; batches start in the middle of episodes, as those of ``small_config`` do."""
    mappo = small_config(kind)
    options: dict[str, Any] = {
        "task": VmasTask(name="vmas/balance", n_envs=6, max_steps=7, params={"n_agents": 3}),
        "actor": network(kind, share_params=False),
        "critic": ValueCriticConfig(heads="one", network=network(kind)),
        **{
            name: getattr(mappo, name)
            for name in (
                "logger",
                "total_frames",
                "frames_per_batch",
                "minibatch_frames",
                "sequence_length",
                "epochs",
                "device",
                "evaluation",
                "checkpoint",
            )
        },
    }
    return HAPPOConfig(**{**options, **kwargs})
