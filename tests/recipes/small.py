"""Configurations that train in a second."""

from __future__ import annotations

from typing import Any

from ctde_kit.recipes import (
    BiCNetNetwork,
    CheckpointConfig,
    CommNetNetwork,
    EvaluationConfig,
    GRUNetwork,
    LoggerConfig,
    MAPPOConfig,
    MLPNetwork,
    SharedCriticConfig,
    TarMACNetwork,
    ValueCriticConfig,
    VmasTask,
)

NORMALIZED: dict[str, Any] = {"normalize_observations": True, "normalize_rewards": True}
CHANNELS: dict[str, Any] = {"bicnet": BiCNetNetwork, "commnet": CommNetNetwork, "tarmac": TarMACNetwork}


def network(kind: str, **kwargs: Any) -> Any:
    """By its name; with a channel, ``bicnet`` or ``bicnet gru``."""
    name, _, encoder = kind.partition(" ")
    if name in CHANNELS:
        return CHANNELS[name](encoder=encoder or "mlp", hidden_size=6, num_cells=[8], **kwargs)
    if kind == "mlp":
        return MLPNetwork(num_cells=[8], **kwargs)
    return GRUNetwork(hidden_size=6, num_cells=[8], **kwargs)


def averaged(every: int) -> ValueCriticConfig:
    """One critic per agent, averaged every so many updates."""
    return ValueCriticConfig(heads="network", average_every=every, network=network("mlp", share_params=False))


def small_config(kind: str = "mlp", **kwargs: Any) -> MAPPOConfig:
    """Six envs, episodes of 7 steps, batches of 10 steps: batches start in the middle of episodes."""
    options: dict[str, Any] = {
        "task": VmasTask(name="vmas/navigation", n_envs=6, max_steps=7, params={"n_agents": 2, "shared_rew": False}),
        "actor": network(kind),
        "critic": ValueCriticConfig(network=network(kind)),
        "logger": LoggerConfig(),
        "total_frames": 240,
        "frames_per_batch": 60,
        "minibatch_frames": 20,
        "sequence_length": 5 if kind == "gru" else None,
        "epochs": 2,
        "device": "cpu",
        "evaluation": EvaluationConfig(every_frames=120, episodes=4),
        "checkpoint": CheckpointConfig(every_frames=60),
    }
    return MAPPOConfig(**{**options, **kwargs})


def shared_config(kind: str = "mlp", **kwargs: Any) -> MAPPOConfig:
    """The same as IPPO, with one network for actor and critic."""
    return small_config(kind, **{"algorithm": "ippo", "critic": SharedCriticConfig(), **kwargs})


SMALL_OVERRIDES = [
    "task.n_envs=6",
    "task.max_steps=7",
    "task.params.n_agents=2",
    "frames_per_batch=60",
    "minibatch_frames=20",
    "epochs=2",
    "evaluation.episodes=4",
    "evaluation.every_frames=120",
    "checkpoint.every_frames=60",
    "device=cpu",
]
