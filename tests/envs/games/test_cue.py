"""The communication task."""

from __future__ import annotations

import pytest
import torch
from torchrl.envs import check_env_specs

from ctde_kit.envs.games import CueEnv
from ctde_kit.errors import UserError
from ctde_kit.specs import TeamSpec


@pytest.mark.parametrize("two_groups", [False, True])
def test_specs_hold(two_groups: bool) -> None:
    check_env_specs(CueEnv(6, n_agents=3, n_goals=5, length=4, two_groups=two_groups))


def test_only_the_first_agent_sees_the_goal_and_the_others_choices_alone_count() -> None:
    env = CueEnv(200, n_agents=3, n_goals=4, length=5)
    carrier = env.reset()
    seen = carrier["agents", "observation"]
    goal = seen[:, 0, :4].argmax(-1)
    assert (seen[:, 0, :4].sum(-1) == 1).all()
    assert not seen[:, 1:].any()
    assert set(goal.tolist()) == {0, 1, 2, 3}
    # The first listener is right in even envs, the second in the first half; the speaker's action does nothing.
    right = torch.stack([torch.arange(200) % 2 == 0, torch.arange(200) < 100], 1)
    action = torch.where(right, goal.unsqueeze(1), (goal.unsqueeze(1) + 1) % 4)
    for speaks in range(4):
        carrier["agents", "action"] = torch.cat([torch.full((200, 1), speaks), action], 1)
        data, carrier = env.step_and_maybe_reset(carrier)
        expected = right.float().mean(1) / 5
        torch.testing.assert_close(data["next", "agents", "reward"], expected.reshape(200, 1, 1).expand(200, 3, 1))
        assert torch.equal(carrier["agents", "observation"][:, 0, :4].argmax(-1), goal)
        assert not carrier["agents", "observation"][:, 1:, :4].any()
        torch.testing.assert_close(carrier["agents", "observation"][..., 4], torch.full((200, 3), (speaks + 1) / 5))
        assert not data["next", "done"].any()
    carrier["agents", "action"] = torch.cat([goal.unsqueeze(1), action], 1)
    data, carrier = env.step_and_maybe_reset(carrier)
    assert data["next", "terminated"].all()
    assert not torch.equal(carrier["agents", "observation"][:, 0, :4].argmax(-1), goal)


def test_two_groups_see_and_choose() -> None:
    env = CueEnv(50, n_agents=4, n_goals=5, length=2, two_groups=True)
    team = TeamSpec.from_env(env)
    sizes = {group.name: (group.n_agents, group.observation_dim) for group in team}
    assert sizes == {"speaker": (1, 6), "listener": (3, 1)}
    carrier = env.reset()
    goal = carrier["speaker", "observation"][:, 0, :5].argmax(-1)
    carrier["speaker", "action"] = torch.zeros(50, 1, dtype=torch.long)
    carrier["listener", "action"] = torch.stack([goal, goal, (goal + 1) % 5], 1)
    rewards = env.step(carrier)["next"]
    torch.testing.assert_close(rewards["speaker", "reward"], torch.full((50, 1, 1), 1 / 3))
    torch.testing.assert_close(rewards["listener", "reward"], torch.full((50, 3, 1), 1 / 3))


def test_a_partial_reset_redraws_the_goals_of_its_own_envs_alone() -> None:
    env = CueEnv(50, n_goals=4)
    carrier = env.rand_step(env.reset())
    before = env.answer.clone()
    carrier["_reset"] = torch.arange(50).reshape(-1, 1) < 25
    env.reset(carrier)
    assert torch.equal(env.answer[25:], before[25:])
    assert not torch.equal(env.answer[:25], before[:25])
    assert env.elapsed.flatten().tolist() == [0] * 25 + [1] * 25


def test_state_is_restored() -> None:
    env = CueEnv(5, n_agents=2, n_goals=4, length=3)
    env.rollout(2)
    saved = env.state_dict()
    expected = (env.answer.clone(), env.elapsed.clone(), torch.rand(3, generator=env.generator))
    env.rollout(7, break_when_any_done=False)
    env.load_state_dict(saved)
    restored = (env.answer, env.elapsed, torch.rand(3, generator=env.generator))
    assert all(torch.equal(a, b) for a, b in zip(expected, restored, strict=True))


def test_impossible_sizes_are_named() -> None:
    with pytest.raises(UserError, match="n_agents=1"):
        CueEnv(2, n_agents=1)
