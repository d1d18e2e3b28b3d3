"""The memory task."""

from __future__ import annotations

import pytest
import torch
from torchrl.envs import check_env_specs

from ctde_kit.envs.games import RecallEnv
from ctde_kit.errors import UserError


def test_specs_hold() -> None:
    check_env_specs(RecallEnv(3, n_agents=2, n_cues=5, length=4))


def test_reward_is_one_for_the_right_answer_at_the_last_step_alone() -> None:
    env = RecallEnv(200, n_agents=3, n_cues=4, length=3)
    carrier = env.reset()
    cue = carrier["agents", "observation"][..., :4].argmax(-1)
    assert (carrier["agents", "observation"][..., :4].sum(-1) == 1).all()
    rewards, data = [], carrier
    for step in range(3):
        carrier["agents", "action"] = torch.where(torch.arange(3) == 1, (cue + 1) % 4, cue)
        data, carrier = env.step_and_maybe_reset(carrier)
        rewards.append(data["next", "agents", "reward"])
        if step < 2:
            assert not carrier["agents", "observation"][..., :4].any()
    assert not torch.stack(rewards[:2]).any()
    assert (rewards[2].squeeze(-1) == torch.tensor([1.0, 0.0, 1.0])).all()
    assert data["next", "terminated"].all()
    assert (carrier["agents", "observation"][..., :4].sum(-1) == 1).all()


def test_partial_reset_keeps_the_other_cues() -> None:
    env = RecallEnv(50, n_agents=2, n_cues=4, length=5)
    carrier = env.reset()
    before = env.answer.clone()
    carrier["_reset"] = torch.arange(50).reshape(-1, 1) < 25
    env.reset(carrier)
    assert torch.equal(env.answer[25:], before[25:])
    assert not torch.equal(env.answer[:25], before[:25])


def test_state_is_restored() -> None:
    env = RecallEnv(5, n_agents=2, n_cues=4, length=3)
    env.rollout(2)
    saved = env.state_dict()
    expected = (env.answer.clone(), env.elapsed.clone(), torch.rand(3, generator=env.generator))
    env.rollout(7, break_when_any_done=False)
    env.load_state_dict(saved)
    restored = (env.answer, env.elapsed, torch.rand(3, generator=env.generator))
    assert all(torch.equal(a, b) for a, b in zip(expected, restored, strict=True))


def test_impossible_sizes_are_named() -> None:
    with pytest.raises(UserError, match="length=1"):
        RecallEnv(2, length=1)
