"""Action values, and the actions that they choose."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torchrl.envs.utils import ExplorationType, set_exploration_type

from ctde_kit.errors import UserError
from ctde_kit.modules import MultiAgentQActor, TeamPolicy, own_observation
from ctde_kit.specs import TeamSpec
from tests.contracts.fakes import HIDDEN, SHARINGS, group_spec, identity_group, make_q_actor, observe

B, N, A = 4, 3, 6
RANDOM, GREEDY = ExplorationType.RANDOM, ExplorationType.DETERMINISTIC


def given(**options: Any) -> tuple[MultiAgentQActor, TensorDict]:
    """An actor whose values are its observations, and values to choose by."""
    group = identity_group(3, **options)
    return MultiAgentQActor(group, own_observation(group), torch.nn.Identity(), epsilon=1.0), observe(
        TeamSpec((group,)), 5, 7
    )


@pytest.mark.parametrize("share", SHARINGS)
@pytest.mark.parametrize("recurrent", [False, True], ids=["mlp", "gru"])
@pytest.mark.parametrize(("kind", "action_shape"), [("categorical", ()), ("one_hot", (A,))])
def test_entries_have_their_shapes(kind: str, action_shape: tuple, recurrent: bool, share: Any) -> None:
    spec = group_spec(kind=kind)
    actor = make_q_actor(spec, recurrent, share)
    data = observe(TeamSpec((spec,)), B).set("is_init", torch.zeros(B, 1, dtype=torch.bool))
    data["agents", "actor_hidden"] = torch.zeros(B, N, HIDDEN)
    out = actor(data)
    assert out["agents", "action_value"].shape == (B, N, A)
    assert out["agents", "chosen_action_value"].shape == (B, N, 1)
    assert out["agents", "action"].shape == (B, N, *action_shape)
    assert set(actor.out_keys) <= set(out.keys(True, True))


def test_the_greedy_action_is_the_best_and_its_value_is_written() -> None:
    actor, data = given()
    with set_exploration_type(GREEDY):
        out = actor(data)
    assert torch.equal(out["agents", "action"], data["agents", "observation"].argmax(-1))
    assert torch.equal(out["agents", "chosen_action_value"][..., 0], data["agents", "observation"].amax(-1))


@pytest.mark.parametrize("explore", [RANDOM, GREEDY])
@pytest.mark.parametrize("kind", ["categorical", "one_hot"])
def test_forbidden_actions_are_never_taken_and_the_dead_do_nothing(explore: Any, kind: str) -> None:
    spec = group_spec(kind=kind, action_mask=True, mask=True)
    actor, data = make_q_actor(spec), observe(TeamSpec((spec,)), 200)
    with set_exploration_type(explore):
        index = actor.index(actor(data)["agents", "action"])
    alive, allowed = data["agents", "mask"], data["agents", "action_mask"]
    assert not index[~alive].any()
    chosen = allowed.gather(-1, index.unsqueeze(-1)).squeeze(-1)
    assert (chosen | ~alive | ~allowed.any(-1)).all()
    assert not index[~allowed.any(-1)].any()  # who may do nothing takes the no-op
    assert data["agents", "chosen_action_value"].isfinite().all()


def test_random_actions_are_uniform_over_the_allowed() -> None:
    spec = group_spec(action_mask=True)
    actor, data = make_q_actor(spec), observe(TeamSpec((spec,)), 6000)
    data["agents", "action_mask"] = torch.tensor([True, False, True, False, False, True]).expand(6000, N, A).clone()
    with set_exploration_type(RANDOM):
        counts = torch.bincount(actor(data)["agents", "action"].flatten(), minlength=A) / 18000
    torch.testing.assert_close(counts, torch.tensor([1, 0, 1, 0, 0, 1]) / 3, atol=0.02, rtol=0)


def test_each_agent_tosses_a_coin_of_its_own() -> None:
    actor, _ = given()
    data = observe(TeamSpec((actor.group,)), 4000)
    data["agents", "observation"] = torch.tensor([0.0, 1.0]).expand(4000, N, 2).clone()
    actor.epsilon.fill_(0.4)
    with set_exploration_type(RANDOM):
        explored = actor(data)["agents", "action"] == 0  # half of the random actions
    assert explored.float().mean(0).tolist() == pytest.approx([0.2] * N, abs=0.03)
    both = (explored[:, 0] & explored[:, 1]).float().mean()
    assert both.item() == pytest.approx(0.04, abs=0.015)  # one coin for all would give 0.1


def test_without_epsilon_or_outside_collection_there_is_no_exploration() -> None:
    actor, data = given()
    for epsilon, explore in ((0.0, RANDOM), (1.0, GREEDY)):
        actor.epsilon.fill_(epsilon)
        with set_exploration_type(explore):
            assert torch.equal(actor(data.clone())["agents", "action"], data["agents", "observation"].argmax(-1))


def test_epsilon_is_saved() -> None:
    actor, other = given()[0], given()[0]
    actor.epsilon.fill_(0.3)
    other.load_state_dict(actor.state_dict())
    assert other.epsilon == actor.epsilon


@pytest.mark.parametrize("recurrent", [False, True], ids=["mlp", "gru"])
@pytest.mark.parametrize("kind", ["categorical", "one_hot"])
def test_for_agent_is_a_slice_of_the_joint_policy(kind: str, recurrent: bool) -> None:
    spec = group_spec(kind=kind, action_mask=True, mask=True)
    actor = make_q_actor(spec, recurrent, False, agent_id=True)
    data = observe(TeamSpec((spec,)), B).set("is_init", torch.arange(B).reshape(B, 1) == 1)
    data["agents", "actor_hidden"] = torch.randn(B, N, HIDDEN)
    joint = actor(data.clone())
    policy = TeamPolicy({"agents": actor})
    assert policy.decentralized
    for agent in range(N):
        single = TensorDict({"is_init": data["is_init"]}, [B])
        for name, value in data["agents"].items():
            single["agents", name] = value[:, agent : agent + 1] if name == "actor_hidden" else value[:, agent]
        alone = policy.for_agent("agents", agent)(single)
        for name in ("action", "action_value", "chosen_action_value"):
            torch.testing.assert_close(alone["agents", name], joint["agents", name][:, agent])
        if recurrent:
            hidden = joint["next", "agents", "actor_hidden"][:, agent : agent + 1]
            torch.testing.assert_close(alone["next", "agents", "actor_hidden"], hidden)


def test_the_last_action_and_the_id_are_inputs() -> None:
    spec = group_spec()
    inputs = own_observation(spec, agent_id=True, last_action=True)
    assert inputs.features == 5 + A + N
    data = observe(TeamSpec((spec,)), B)
    data["agents", "last_action"] = torch.randn(B, N, A)
    assert torch.equal(inputs(data)[..., 5 : 5 + A], data["agents", "last_action"])


@pytest.mark.parametrize("kind", ["continuous", "multi_discrete"])
def test_other_actions_are_refused(kind: str) -> None:
    message = "use an env that has them" if kind == "continuous" else "one choice per agent"
    with pytest.raises(UserError, match=message):
        make_q_actor(group_spec(kind=kind))
