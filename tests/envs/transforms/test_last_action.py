"""The action before, as an observation."""

from __future__ import annotations

import torch
from tensordict import TensorDict
from torch.nn.functional import one_hot
from torchrl.envs import TransformedEnv, check_env_specs

from ctde_kit.envs.games import RecallEnv
from ctde_kit.envs.transforms import LastAction
from ctde_kit.specs import TeamSpec
from tests.contracts.fakes import group_spec


def make_env(num_envs: int = 3) -> TransformedEnv:
    env = RecallEnv(num_envs, n_agents=2, n_cues=4, length=3)
    return TransformedEnv(env, LastAction(TeamSpec.from_env(env)))


def test_specs_hold() -> None:
    check_env_specs(make_env())


def test_the_next_step_sees_this_steps_action_and_a_new_episode_none() -> None:
    steps = make_env().rollout(7, break_when_any_done=False)
    action = one_hot(steps["agents", "action"], 4).float()
    assert torch.equal(steps["next", "agents", "last_action"], action)
    for t in range(7):
        expected = 0 * action[:, t] if t % 3 == 0 else action[:, t - 1]
        assert torch.equal(steps["agents", "last_action"][:, t], expected)


def test_a_partial_reset_keeps_the_others() -> None:
    env = make_env()
    _, carrier = env.step_and_maybe_reset(env.rand_action(env.reset()))
    before = carrier["agents", "last_action"].clone()
    carrier["_reset"] = torch.tensor([[True], [False], [False]])
    after = env.reset(carrier)["agents", "last_action"]
    assert not after[0].any()
    assert torch.equal(after[1:], before[1:])
    assert before.any()


def test_several_choices_of_one_agent_stand_side_by_side() -> None:
    spec = group_spec("agents", 3, "multi_discrete")
    transform, data = LastAction(TeamSpec((spec,))), TensorDict({}, [4])
    data["agents", "action"] = torch.stack([torch.randint(size, (4, 3)) for size in spec.action.sizes], -1)
    following = transform._step(data, TensorDict({}, [4]))
    first, second = data["agents", "action"].unbind(-1)
    expected = torch.cat([one_hot(first, 2), one_hot(second, 6)], -1).float()
    assert torch.equal(following["agents", "last_action"], expected)
