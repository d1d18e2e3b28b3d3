"""Soft actor-critic in games whose soft solution is known, in seconds."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ctde_kit.recipes import (
    LoggerConfig,
    MASACConfig,
    MatrixTask,
    MLPNetwork,
    PolyakTarget,
    ReplayConfig,
    ValueCriticConfig,
)
from ctde_kit.training import Parts, iterate

# What an agent's choice adds to the team's payoff does not depend on the other's.
FIRST, SECOND = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([0.5, -1.0, 0.0])
GAME = MatrixTask(name="matrix/additive", payoff=(FIRST.unsqueeze(1) + SECOND).tolist(), n_envs=20)


def trained(**options: Any) -> Parts:
    """After 360 updates in the additive game."""
    defaults: dict[str, Any] = {
        "task": GAME,
        "actor": MLPNetwork(num_cells=[32], activation="relu", agent_id=True),
        # One head per agent: to one that sees each agent's own action first, agents who observe the same are the same.
        "critic": ValueCriticConfig(network=MLPNetwork(num_cells=[32], activation="relu")),
        "replay": ReplayConfig(capacity=4_000, batch_size=64),
        "target": PolyakTarget(tau=0.05),
        "logger": LoggerConfig(),
        "device": "cpu",
        "compile": "off",
        "total_frames": 2_400,
        "frames_per_batch": 400,
        "updates_per_frame": 0.15,
        "lr": 1e-2,
        "max_grad_norm": 10.0,
        "anneal_lr": True,
    }
    parts = MASACConfig(**{**defaults, **options}).build()
    for _ in iterate(parts):
        pass
    return parts


@torch.no_grad()
def policies(parts: Parts) -> torch.Tensor:
    """Each agent's probabilities ``[2, 3]``."""
    actor: Any = parts.policy.actors["agents"]  # type: ignore[union-attr]
    return actor.get_dist(parts.collector.env.reset()[:1]).probs[0]  # type: ignore[attr-defined]


@pytest.mark.slow
def test_policies_are_the_softmax_of_what_choices_are_worth_over_the_temperature() -> None:
    found = policies(trained(alpha_init=0.8, fixed_alpha=True))
    expected = torch.stack([FIRST, SECOND]).div(0.8).softmax(-1)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.05)


@pytest.mark.slow
def test_the_temperature_brings_entropy_to_its_target() -> None:
    parts = trained(alpha_init=1.0, target_entropy=0.5, share_alpha=False)
    found = policies(parts)
    entropies = -(found * found.log()).sum(-1)
    torch.testing.assert_close(entropies, torch.full((2,), 0.5), rtol=0, atol=0.1)
    log_alpha = parts.update.losses["team"].temperatures["agents"].log_alpha  # type: ignore[union-attr]
    # The same entropy takes more of it where choices differ more.
    assert log_alpha[0] > log_alpha[1]
