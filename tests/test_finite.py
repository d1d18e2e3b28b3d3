"""Observations and rewards that are not finite end a run before anything learns from them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict import TensorDict

from ctde_kit.errors import NotFiniteError
from ctde_kit.finite import check_finite
from ctde_kit.training import iterate
from tests.recipes.small import small_config
from tests.recipes.small_maddpg import small_maddpg_config
from tests.recipes.small_q import small_pqn_config, small_q_config


def batch() -> TensorDict:
    entries = {"observation": torch.zeros(2, 3, 4, 5), "reward": torch.zeros(2, 3, 4, 1)}
    mask = torch.ones(2, 3, 4, dtype=torch.bool)
    group = {"observation": entries["observation"], "mask": mask}
    following = {"observation": entries["observation"].clone(), "reward": entries["reward"], "mask": mask.clone()}
    return TensorDict({"agents": group, "state": torch.zeros(2, 3, 7), "next": {"agents": following}}, [2, 3])


@pytest.mark.parametrize(
    ("key", "place", "message"),
    [
        (
            ("agents", "observation"),
            (1, 2, 3, 4),
            "observation of group 'agents' is nan in env 1 (key ('agents',",
        ),
        (
            ("next", "agents", "reward"),
            (0, 2, 3, 0),
            "reward of group 'agents' is nan in env 0 (key ('next',",
        ),
        ("state", (1, 0, 6), "state is nan in env 1 (key 'state', at 600 frames): the environment gave it; correct"),
    ],
)
def test_key_group_and_env_are_named(key: Any, place: tuple[int, ...], message: str) -> None:
    data = batch()
    check_finite(data, 600)
    data.get(key)[place] = torch.nan
    with pytest.raises(NotFiniteError) as caught:
        check_finite(data, 600)
    assert message in str(caught.value)


def test_what_dead_agents_observe_is_nobodys() -> None:
    data = batch()
    data["agents", "observation"][1, 2, 3] = torch.nan
    data["agents", "mask"][1, 2, 3] = False
    check_finite(data, 600)
    data["next", "agents", "reward"][1, 2, 3] = torch.inf
    check_finite(data, 600)
    data["next", "agents", "observation"][1, 2, 3] = torch.nan
    with pytest.raises(NotFiniteError, match="env 1"):
        check_finite(data, 600)


@pytest.mark.parametrize("config", [small_config, small_q_config, small_pqn_config, small_maddpg_config])
def test_a_run_ends_with_its_name(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = config().build()
    loop = iterate(parts)
    next(loop)
    scenario = parts.collector.env.base_env.scenario
    observation = scenario.observation

    def broken(agent: Any) -> torch.Tensor:
        seen = observation(agent).clone()
        seen[3] = torch.nan
        return seen

    monkeypatch.setattr(scenario, "observation", broken)
    with pytest.raises(NotFiniteError, match=r"^observation of group 'agents' is nan in env 3 \(key"):
        next(loop)


def test_huge_rewards_do_not_zero_the_policys_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = small_config().build()
    scenario = parts.collector.env.base_env.scenario
    reward = scenario.reward
    monkeypatch.setattr(scenario, "reward", lambda agent: reward(agent) * 1e20)
    before = [parameter.clone() for parameter in parts.policy.parameters()]
    iteration = next(iterate(parts))
    assert iteration.batch["next", "agents", "reward"].abs().max() > 1e17
    assert iteration.batch["agents", "advantage"].std() > 0.5
    assert any(not torch.equal(old, new) for old, new in zip(before, parts.policy.parameters(), strict=True))


@pytest.mark.parametrize("config", [small_config, small_q_config])
def test_a_seed_is_also_pythons_and_numpys(config: Any) -> None:
    import random

    import numpy as np

    drawn = []
    for _ in range(2):
        config(seed=5).build()
        drawn.append((random.random(), np.random.rand()))
    assert drawn[0] == drawn[1]
