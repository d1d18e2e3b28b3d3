"""Policies of groups of agents, and of one agent alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict import TensorDict, TensorDictBase
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import MultiAgentMLP as TorchRLMultiAgentMLP

from ctde_kit.errors import UserError
from ctde_kit.modules import LearnedScale, MultiAgentActor, MultiAgentMLP, TeamPolicy, own_observation, team_observation
from ctde_kit.specs import ActionSpec, GroupSpec, TeamSpec
from ctde_kit.testing import check_policy
from tests.contracts.fakes import (
    HIDDEN,
    KINDS,
    SHARINGS,
    collect,
    endings,
    group_spec,
    make_actor,
    make_network,
    observe,
)

B, N = 4, 3
ACTION_SHAPES = {"continuous": (2,), "categorical": (), "one_hot": (6,), "multi_discrete": (2,)}


def greedy(actor: Any, data: TensorDictBase) -> TensorDictBase:
    with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
        return actor(data.clone())


def recurrent_data(spec: Any, *batch: int) -> TensorDict:
    data = observe(TeamSpec((spec,)), *batch)
    data.set("is_init", torch.arange(B).reshape(B, 1) == 1)
    return data.set(("agents", "actor_hidden"), torch.randn(*batch, N, HIDDEN))


def slice_of(data: TensorDictBase, agent: int) -> TensorDict:
    """The entries of one agent, without the agent axis (its hidden state keeps one)."""
    single = TensorDict({"is_init": data["is_init"]}, data.batch_size)
    for name, value in data["agents"].items():
        single["agents", name] = value[:, agent : agent + 1] if name == "actor_hidden" else value[:, agent]
    return single


@pytest.mark.parametrize("kind", KINDS)
def test_actions_and_log_probs_have_their_shapes(kind: str) -> None:
    spec = group_spec(kind=kind)
    with set_exploration_type(ExplorationType.RANDOM):
        out = make_actor(spec)(observe(TeamSpec((spec,)), B, 7))
    assert out["agents", "action"].shape == (B, 7, N, *ACTION_SHAPES[kind])
    assert out["agents", "action_log_prob"].shape == (B, 7, N)


@pytest.mark.parametrize("share", SHARINGS)
@pytest.mark.parametrize("recurrent", [False, True], ids=["mlp", "gru"])
@pytest.mark.parametrize("kind", KINDS)
def test_for_agent_is_a_slice_of_the_joint_policy(kind: str, recurrent: bool, share: Any) -> None:
    spec = group_spec(kind=kind, action_mask=kind != "continuous", mask=True)
    actor = make_actor(spec, recurrent, share, agent_id=True)
    data = recurrent_data(spec, B)
    joint = greedy(actor, data)
    for agent in range(N):
        given = slice_of(data, agent)
        alone = greedy(actor.for_agent(agent), given)
        expected = slice_of(joint, agent)
        keys = [("agents", "action"), ("agents", "action_log_prob")]
        if recurrent:
            keys.append(("agents", "actor_hidden"))
            hidden = joint["next", "agents", "actor_hidden"][:, agent : agent + 1]
            torch.testing.assert_close(alone["next", "agents", "actor_hidden"], hidden)
        for key in keys:
            torch.testing.assert_close(alone[key], expected[key])


@pytest.mark.parametrize("share", SHARINGS)
@pytest.mark.parametrize("learned_scale", [False, True])
@pytest.mark.parametrize("recurrent", [False, True], ids=["mlp", "gru"])
@pytest.mark.parametrize("kind", ["continuous", "categorical"])
def test_an_agent_whose_network_gives_its_value_acts_alone_as_in_its_group(
    kind: str, recurrent: bool, learned_scale: bool, share: Any
) -> None:
    spec = group_spec(kind=kind, action_mask=kind != "continuous", mask=True)
    actor = make_actor(spec, recurrent, share, learned_scale=learned_scale and kind == "continuous", value_head=True)
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    data = recurrent_data(spec, B)
    joint = greedy(actor, data)
    assert joint["agents", "state_value"].shape == (B, N, 1)
    for agent in range(N):
        alone = greedy(actor.for_agent(agent), slice_of(data, agent))
        assert "state_value" not in alone["agents"]
        for name in ("action", "action_log_prob"):
            torch.testing.assert_close(alone["agents", name], slice_of(joint, agent)["agents", name])
        row = TensorDict({"agents": {k: v[:, agent : agent + 1] for k, v in data["agents"].items()}}, [B])
        group_of_one = greedy(actor.group_of_one(agent), row.set("is_init", data["is_init"]))
        torch.testing.assert_close(
            group_of_one["agents", "state_value"], joint["agents", "state_value"][:, agent : agent + 1]
        )


def test_a_network_without_an_output_for_the_value_is_refused() -> None:
    spec = group_spec()
    actor = MultiAgentActor(spec, own_observation(spec), make_network(False)(5, 6, N), value_head=True)
    with pytest.raises(UserError, match=r"gave \[4, 3, 6\]: expected .* 7\], where 7 is .*, and one for the value"):
        actor(observe(TeamSpec((spec,)), B))


def test_for_agent_writes_into_the_tensordict_that_it_reads() -> None:
    spec = group_spec(action_mask=True)
    single = make_actor(spec).for_agent(2)
    data = slice_of(recurrent_data(spec, B), 2)
    before = data["agents", "action_mask"].clone()
    assert single(data) is data
    assert set(single.out_keys) <= set(data.keys(True, True))
    assert torch.equal(data["agents", "action_mask"], before)


def test_for_agent_follows_the_joint_policys_learning() -> None:
    spec = group_spec(kind="continuous")
    actor = make_actor(spec)
    single = actor.for_agent(1)
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.add_(torch.randn_like(parameter))
    data = recurrent_data(spec, B)
    torch.testing.assert_close(
        greedy(single, slice_of(data, 1))["agents", "action"], greedy(actor, data)["agents", "action"][:, 1]
    )


@pytest.mark.parametrize("agent", [-1, 3])
def test_for_agent_knows_its_agents(agent: int) -> None:
    with pytest.raises(UserError, match="agents 0 to 2"):
        make_actor(group_spec()).for_agent(agent)


def sees_others(actor: MultiAgentActor, spec: GroupSpec) -> bool:
    """Whether the doctor finds that an agent's outputs move with another agent's data."""
    batch = collect(TeamSpec((spec,)), {"agents": actor}, *endings())[0]
    return check_policy(actor, batch, decentralized=True, raises=False)["own_data_alone"].verdict == "broken"


def test_an_actor_that_sees_the_team_is_not_decentralized() -> None:
    spec = group_spec()
    inputs = team_observation(TeamSpec((spec,)), spec, repeat=True)
    actor = MultiAgentActor(spec, inputs, make_network(False)(inputs.features, 6, N))
    assert sees_others(actor, spec)
    assert not actor.decentralized
    with pytest.raises(UserError, match="other agents' data"):
        actor.for_agent(0)


@pytest.mark.parametrize("centralized", [False, True])
def test_torchrls_network_says_whether_it_is_centralized(centralized: bool) -> None:
    spec = group_spec()
    network = TorchRLMultiAgentMLP(5, 6, N, centralized=centralized, share_params=True, depth=1, num_cells=8)
    actor = MultiAgentActor(spec, own_observation(spec), network)
    assert sees_others(actor, spec) == centralized
    assert actor.decentralized == (not centralized)


def two_policies_with_a_shared_layer() -> TeamPolicy:
    wolves, sheep = make_actor(group_spec("wolves", 3)), make_actor(group_spec("sheep", 2, "continuous"))
    sheep.agent_network.network.layers[0] = wolves.agent_network.network.layers[0]
    return TeamPolicy({"wolves": wolves, "sheep": sheep})


def test_a_shared_layer_stands_once_in_an_optimizer() -> None:
    parameters = list(two_policies_with_a_shared_layer().parameters())
    assert len(parameters) == len({parameter.data_ptr() for parameter in parameters}) == 6
    torch.optim.Adam(parameters)


def test_a_shared_layer_learns_from_both_policies() -> None:
    policy = two_policies_with_a_shared_layer()
    team = TeamSpec((group_spec("wolves", 3), group_spec("sheep", 2, "continuous")))
    shared = policy.actors["sheep"].agent_network.network.layers[0].weight
    gradients = []
    for actor, key in ((policy.actors["wolves"], ("wolves", "logits")), (policy.actors["sheep"], ("sheep", "loc"))):
        out = actor(observe(team, B))
        gradients += torch.autograd.grad(out[key].square().sum(), [shared])
    assert all(gradient.any() for gradient in gradients)


def test_a_shared_layer_survives_a_state_dict() -> None:
    saved, policy = two_policies_with_a_shared_layer(), two_policies_with_a_shared_layer()
    policy.load_state_dict(saved.state_dict())
    wolves, sheep = (actor.agent_network.network.layers[0] for actor in policy.actors.values())
    assert wolves.weight is sheep.weight
    assert torch.equal(wolves.weight, saved.actors["wolves"].agent_network.network.layers[0].weight)


def test_a_team_policy_acts_for_every_group() -> None:
    policy = two_policies_with_a_shared_layer()
    out = policy(observe(TeamSpec((group_spec("wolves", 3), group_spec("sheep", 2, "continuous"))), B))
    assert out["wolves", "action"].shape == (B, 3)
    assert out["sheep", "action"].shape == (B, 2, 2)
    assert policy.decentralized
    assert policy.for_agent("sheep", 1).in_keys == [("sheep", "observation")]


def test_masked_actions_reach_no_env() -> None:
    spec = group_spec(action_mask=True)
    data = observe(TeamSpec((spec,)), 200)
    with set_exploration_type(ExplorationType.RANDOM):
        out = make_actor(spec)(data)
    allowed = data["agents", "action_mask"].gather(-1, out["agents", "action"].unsqueeze(-1)).squeeze(-1)
    may_act = data["agents", "action_mask"].any(-1)
    assert torch.equal(allowed, may_act)
    assert not out["agents", "action"][~may_act].any()


def test_learned_scale_depends_on_no_input_and_slices_by_agent() -> None:
    group = GroupSpec("agents", 3, 5, ActionSpec("continuous", (2,), ((-1.0, -1.0),) * 3, ((1.0, 1.0),) * 3))
    inputs = own_observation(group)
    scale = LearnedScale(2, 3, share_params=[0, 1, 0], initial=0.5)
    with torch.no_grad():
        scale.log_scale[1] += 1.0
    actor = MultiAgentActor(group, inputs, MultiAgentMLP(inputs.features, 2, 3, num_cells=(4,)), scale)
    batch = TensorDict({"agents": TensorDict({"observation": torch.randn(7, 3, 5)}, [7, 3])}, [7])
    written = actor.get_dist(batch.clone()).base.scale
    expected = torch.tensor([0.5, 0.5 * torch.e, 0.5]).reshape(1, 3, 1).expand(7, 3, 2)
    assert torch.allclose(written, expected)
    alone = TensorDict({"agents": TensorDict({"observation": batch["agents", "observation"][:, 1]}, [7])}, [7])
    assert torch.allclose(actor.for_agent(1).actor.get_dist(alone).base.scale.squeeze(1), expected[:, 1])
    actor.get_dist(batch.clone()).log_prob(torch.zeros(7, 3, 2)).sum().backward()
    assert scale.log_scale.grad is not None
    assert (scale.log_scale.grad != 0).all()


def test_for_agent_names_a_network_that_cannot_be_taken_apart() -> None:
    group = GroupSpec("agents", 3, 5, ActionSpec("categorical", (4,)))
    network = TorchRLMultiAgentMLP(5, 4, n_agents=3, centralized=False, share_params=True, depth=1, num_cells=8)
    actor = MultiAgentActor(group, own_observation(group), network)
    with pytest.raises(UserError, match="has no for_agent"):
        actor.for_agent(0)
