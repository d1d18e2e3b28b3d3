"""How long VMAS may look for room."""

from __future__ import annotations

import contextlib

import pytest
import torch

from ctde_kit.envs.vmas import VmasEnv, simulation, spawning, vmas_env
from ctde_kit.errors import UserError


def test_a_field_that_is_full_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spawning, "MOST_TRIES", 300)
    with pytest.raises(
        UserError, match=r"^navigation: no place .*0\.25 apart .*fewer agents, or a larger world_spawning_x and world_"
    ):
        VmasEnv("navigation", num_envs=2, seed=0, n_agents=60)
    crowd = VmasEnv("navigation", num_envs=2, seed=0, n_agents=60, world_spawning_x=5, world_spawning_y=5)
    assert crowd.reset()["agents", "observation"].shape[1] == 60


def test_places_are_vmas_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, over full and partial resets."""
    rows = torch.tensor([[True], [False], [True]])

    def positions() -> list[torch.Tensor]:
        env = VmasEnv("navigation", num_envs=3, seed=4, n_agents=8)
        data = env.reset()
        return [data["agents", "observation"], env.reset(data.set("_reset", rows))["agents", "observation"]]

    limited = positions()
    for module in (simulation, vmas_env):
        monkeypatch.setattr(module, "limited_spawning", lambda _: contextlib.nullcontext())
    assert all(torch.equal(*pair) for pair in zip(limited, positions(), strict=True))
