"""Q-learning configurations that train in a second."""

from __future__ import annotations

from typing import Any

from ctde_kit.recipes import (
    CheckpointConfig,
    EpisodeForm,
    EvaluationConfig,
    LoggerConfig,
    NStepReturns,
    PolyakTarget,
    PQNConfig,
    QMIXConfig,
    QMixerConfig,
    ReplayConfig,
    SequenceForm,
    TDLambdaReturns,
    TransitionForm,
    VDNMixerConfig,
    VmasTask,
)
from tests.recipes.small import network

FORMS = {
    "transitions": TransitionForm,
    "sequences": lambda: SequenceForm(length=4, burn_in=2),
    "episodes": EpisodeForm,
}


def navigation() -> VmasTask:
    """Six envs, episodes of 7 steps."""
    params = {"n_agents": 2, "shared_rew": False}
    return VmasTask(name="vmas/navigation", n_envs=6, max_steps=7, continuous_actions=False, params=params)


def small_q_config(kind: str = "mlp", form: str = "transitions", **kwargs: Any) -> QMIXConfig:
    """Batches of 10 steps: they start in the middle of episodes; the replay wraps around."""
    replay = {"capacity": 130, "batch_size": 8, **kwargs.pop("replay", {})}
    options: dict[str, Any] = {
        "task": navigation(),
        "actor": network(kind),
        "mixer": QMixerConfig(embed_dim=5, hypernet_cells=[6]),
        "replay": ReplayConfig(form=FORMS[form](), **replay),
        "returns": NStepReturns(1) if form == "transitions" else TDLambdaReturns(0.7),
        "target": PolyakTarget(tau=0.1),
        "logger": LoggerConfig(),
        "total_frames": 240,
        "frames_per_batch": 60,
        "updates_per_frame": 0.07,
        "epsilon_frames": 200,
        "device": "cpu",
        "evaluation": EvaluationConfig(every_frames=120, episodes=4),
        "checkpoint": CheckpointConfig(every_frames=60),
    }
    return QMIXConfig(**{**options, **kwargs})


def small_pqn_config(kind: str = "mlp", **kwargs: Any) -> PQNConfig:
    options: dict[str, Any] = {
        "task": navigation(),
        "actor": network(kind, layer_norm=True),
        "mixer": VDNMixerConfig(),
        "returns": TDLambdaReturns(0.7),
        "logger": LoggerConfig(),
        "total_frames": 240,
        "frames_per_batch": 60,
        "minibatch_frames": 20,
        "sequence_length": 5,
        "epochs": 2,
        "epsilon_frames": 200,
        "device": "cpu",
        "evaluation": EvaluationConfig(every_frames=120, episodes=4),
        "checkpoint": CheckpointConfig(every_frames=60),
    }
    return PQNConfig(**{**options, **kwargs})
