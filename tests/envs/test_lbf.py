"""Level-based foraging: against ``lbforaging`` itself, and by hand."""

from __future__ import annotations

import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torchrl.envs.utils import check_env_specs

from ctde_kit.envs.lbf import LBFParallelEnv, lbf_parallel_env
from ctde_kit.envs.workers import worker_env
from ctde_kit.errors import UserError

pytest.importorskip("lbforaging")
pytestmark = pytest.mark.timeout(60)

TASK = "Foraging-8x8-2p-2f-coop-v3"
NONE, NORTH, LOAD = 0, 1, 5


def test_it_is_lbforaging() -> None:
    plain: Any = gymnasium.make(TASK, disable_env_checker=True).unwrapped
    env = lbf_parallel_env(TASK, max_steps=50)
    rng = np.random.default_rng(0)
    for seed in (3, None, None):
        expected, _ = plain.reset(seed=seed)
        found, _ = env.reset(seed=seed)
        for step in range(1, 51):
            assert [found[agent].tolist() for agent in ("agent_0", "agent_1")] == [row.tolist() for row in expected]
            assert env.state().tolist() == np.concatenate(expected).tolist()
            actions = rng.integers(6, size=2)
            expected, expected_rewards, done, _, _ = plain.step(actions.tolist())
            found, rewards, terminated, truncated, _ = env.step(dict(zip(env.agents, actions, strict=True)))
            assert list(rewards.values()) == expected_rewards
            assert done == (step == 50)
            assert list(terminated.values()) == [False, False]
            assert list(truncated.values()) == [step == 50] * 2
        assert env.agents == []


def place(env: LBFParallelEnv, foods: list[tuple[int, int]]) -> dict[str, Any]:
    """Two players of level 1 below the middle of two foods of level 2 each; returns the infos."""
    env.reset(seed=0)
    inner = env.unwrapped
    inner.field[...] = 0
    for food in foods:
        inner.field[food] = 2
    inner._food_spawned = inner.field.sum()
    for player, position in zip(inner.players, [(3, 2), (3, 4)], strict=True):
        player.position, player.level = position, 1
    inner._gen_valid_moves()
    return env._infos()


def test_eating_by_hand() -> None:
    env = lbf_parallel_env(TASK, max_steps=3)
    infos = place(env, [(3, 3), (1, 6)])
    assert infos["agent_0"]["action_mask"].tolist() == [1, 1, 1, 1, 0, 1]
    assert infos["agent_1"]["action_mask"].tolist() == [1, 1, 1, 0, 1, 1]
    rewards = env.step({"agent_0": LOAD, "agent_1": NONE})[1]
    assert rewards == {"agent_0": 0.0, "agent_1": 0.0}
    _, rewards, terminated, truncated, infos = env.step({"agent_0": LOAD, "agent_1": LOAD})
    # level * food / (levels that load * food in the field) = 1 * 2 / (2 * 4)
    assert rewards == {"agent_0": 0.25, "agent_1": 0.25}
    assert not any(terminated.values())
    assert infos["agent_0"]["action_mask"].tolist() == [1, 1, 1, 1, 1, 0]
    _, _, terminated, truncated, _ = env.step({"agent_0": NONE, "agent_1": NONE})
    assert (terminated, truncated) == (dict.fromkeys(truncated, False), dict.fromkeys(truncated, True))


@pytest.mark.parametrize("max_steps", [1, 2])
def test_eating_everything_terminates_even_at_the_limit(max_steps: int) -> None:
    env = lbf_parallel_env(TASK, max_steps=max_steps)
    place(env, [(3, 3)])
    _, rewards, terminated, truncated, _ = env.step({"agent_0": LOAD, "agent_1": LOAD})
    assert sum(rewards.values()) == 1
    assert all(terminated.values())
    assert not any(truncated.values())


def test_in_workers() -> None:
    env = worker_env(lambda: lbf_parallel_env(TASK, max_steps=6), n_envs=3, n_workers=2, seed=0)
    check_env_specs(env)
    assert env.group_map == {"agents": ["agent_0", "agent_1"]}
    data = env.rollout(14, break_when_any_done=False)
    assert data["agents", "observation"].shape == (3, 14, 2, 12)
    assert data["agents", "action_mask"].shape == (3, 14, 2, 6)
    assert torch.equal(data["state"], data["agents", "observation"].flatten(-2))
    assert data["agents", "action_mask"].gather(-1, data["agents", "action"].unsqueeze(-1)).all()
    assert data["next", "truncated"].flatten(1).nonzero()[:, 1].tolist() == [5, 11] * 3
    assert not data["next", "terminated"].any()
    env.close()


def test_random_agents_eat_next_to_nothing() -> None:
    env = worker_env(lambda: lbf_parallel_env(TASK), n_envs=20, seed=0)
    reward = env.rollout(250, break_when_any_done=False)["next", "agents", "reward"]
    env.close()
    assert 0 <= reward.sum() / 100 < 0.04


def test_mistakes_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        UserError, match=r"unknown level-based foraging task .* did you mean .*Foraging-8x8-2p-2f-coop-v3"
    ):
        lbf_parallel_env("Foraging-8x8-2p-2f-co-op-v3")
    with pytest.raises(UserError, match="max_steps: expected an integer >= 1, found 0"):
        lbf_parallel_env(TASK, max_steps=0)
    monkeypatch.setitem(sys.modules, "lbforaging", None)
    with pytest.raises(UserError, match=r'pip install "ctde-kit\[lbf\]"'):
        lbf_parallel_env(TASK)


def test_loads_are_resolved_in_the_players_order_not_in_that_of_memory_addresses() -> None:
    env = lbf_parallel_env("Foraging-8x8-2p-2f-coop-v3")
    env.reset(seed=0)
    first, second = env.unwrapped.players
    assert (hash(first), hash(second)) == (0, 1)
    assert first != second
    for order in ((first, second), (second, first)):
        players = set(order)
        assert players.pop() is first


def test_a_seeded_reset_does_not_depend_on_the_last_episode() -> None:
    fresh = lbf_parallel_env("Foraging-8x8-2p-2f-coop-v3")
    used = lbf_parallel_env("Foraging-8x8-2p-2f-coop-v3")
    for seed in range(200):
        used.reset(seed=seed + 1)
        for player in used.unwrapped.players:
            player.position = fresh.unwrapped.players[0].position or (0, 0)
        observations, _ = fresh.reset(seed=seed)
        again, _ = used.reset(seed=seed)
        assert all((observations[agent] == again[agent]).all() for agent in observations)
        fresh.reset(seed=seed)
