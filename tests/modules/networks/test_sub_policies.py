"""Ensembles of policies: drawn once an episode, and each agent's own network among several."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.envs.utils import ExplorationType, set_exploration_type

from ctde_kit.errors import UserError
from ctde_kit.modules import MultiAgentDeterministicActor, SubPolicies, SubPolicyDraw, own_observation
from ctde_kit.specs import GroupSpec, TeamSpec
from tests.contracts.fakes import HIDDEN, SHARINGS, group_spec, make_network, observe

N_ENVS, LENGTH, SIZE = 5, 9, 4
INDEX = ("agents", "sub_policy")


def networks(group: GroupSpec, recurrent: bool, share: Any = False) -> list[Any]:
    make = make_network(recurrent, share)
    return [make(group.observation_dim, group.action.vector_dim, group.n_agents) for _ in range(SIZE)]


def make(group: GroupSpec, recurrent: bool = False, share: Any = False) -> MultiAgentDeterministicActor:
    inputs = own_observation(group, sub_policies=SIZE)
    chosen = SubPolicies(networks(group, recurrent, share))
    return MultiAgentDeterministicActor(group, inputs, chosen, sub_policies=SubPolicyDraw(group, SIZE))


def data_for(group: GroupSpec, *batch: int) -> TensorDictBase:
    data = observe(TeamSpec((group,)), *batch).set("is_init", torch.zeros(*batch, 1, dtype=torch.bool))
    data.set(group.keys.hidden("actor"), torch.randn(*batch, group.n_agents, HIDDEN))
    return data.set(INDEX, torch.randint(SIZE, (*batch, group.n_agents)))


def resets() -> Tensor:
    """Where episodes start, ``[N_ENVS, LENGTH, 1]``: elsewhere in each env."""
    starts = torch.zeros(N_ENVS, LENGTH, 1, dtype=torch.bool)
    for env, step in enumerate((2, 4, 4, 7, 8)):
        starts[env, step] = True
    return starts


def test_the_draw_is_kept_within_an_episode_and_made_anew_at_the_next() -> None:
    group = group_spec()
    draw, starts = SubPolicyDraw(group, 1000), resets()
    index, seen = torch.full((N_ENVS, 3), 7), []
    for t in range(LENGTH):
        data = TensorDict({"agents": {"sub_policy": index}, "is_init": starts[:, t]}, [N_ENVS])
        data = draw(data)
        index = data["next", "agents", "sub_policy"]
        assert torch.equal(index, data[INDEX])
        assert index.dtype == torch.long
        seen.append(index)
    steps = torch.stack(seen, 1)
    began = starts.squeeze(-1).long().argmax(1)
    for env in range(N_ENVS):
        assert (steps[env, : began[env]] == 7).all()
        drawn = steps[env, began[env] :]
        assert (drawn == drawn[0]).all()
        assert len(set(drawn[0].tolist())) == 3, "each agent by itself"
    assert len(steps[:, -1].unique()) > N_ENVS, "each env by itself"


def test_the_draw_is_uniform_whatever_the_exploration() -> None:
    group = group_spec()
    data = TensorDict({"agents": {"sub_policy": torch.zeros(4000, 3).long()}, "is_init": torch.ones(4000, 1).bool()})
    for exploration in (ExplorationType.RANDOM, ExplorationType.DETERMINISTIC):
        with set_exploration_type(exploration):
            drawn = SubPolicyDraw(group, SIZE)(data.copy())[INDEX]
        shares = torch.nn.functional.one_hot(drawn, SIZE).float().mean(0)
        torch.testing.assert_close(shares, torch.full((3, SIZE), 1 / SIZE), rtol=0, atol=0.03)


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("share", SHARINGS)
def test_each_agent_follows_its_own_network(share: Any, recurrent: bool) -> None:
    group = group_spec(kind="continuous")
    actor, data = make(group, recurrent, share), data_for(group, N_ENVS)
    out = actor(data.copy())
    assert torch.equal(out[INDEX], data[INDEX])
    x, carried = data["agents", "observation"], (data["agents", "actor_hidden"], data["is_init"])
    for k, network in enumerate(actor.agent_network.network.networks):
        alone = network(x, *carried) if recurrent else (network(x),)
        here = data[INDEX] == k
        assert here.any()
        torch.testing.assert_close(out["agents", "loc"][here], alone[0][here])
        if recurrent:
            torch.testing.assert_close(out["next", "agents", "actor_hidden"][here], alone[1][here])


def test_others_get_no_gradient() -> None:
    group = group_spec(kind="continuous")
    actor, data = make(group), data_for(group, N_ENVS)
    data[INDEX] = torch.tensor([2, 0, 2]).expand(N_ENVS, 3)
    actor(data)["agents", "loc"].square().sum().backward()
    for k, network in enumerate(actor.agent_network.network.networks):
        moved = [bool(row.any()) for row in network.layers[0].weight.grad]
        assert moved == {0: [False, True, False], 2: [True, False, True]}.get(k, [False] * 3)


def test_one_sub_policy_is_the_network_itself() -> None:
    group = group_spec(kind="continuous")
    for recurrent in (False, True):
        network = networks(group, recurrent)[0]
        plain = MultiAgentDeterministicActor(group, own_observation(group), network)
        inputs = own_observation(group, sub_policies=1)
        single = MultiAgentDeterministicActor(
            group, inputs, SubPolicies([network]), sub_policies=SubPolicyDraw(group, 1)
        )
        data = data_for(group, N_ENVS).set(INDEX, torch.zeros(N_ENVS, 3, dtype=torch.long))
        ours, theirs = single(data.copy()), plain(data.copy())
        for key, value in theirs.items(True, True):
            assert torch.equal(ours[key], value), key


def test_step_by_step_equals_the_sequence_across_new_draws() -> None:
    from torchrl.modules import set_recurrent_mode

    group, starts = group_spec(kind="continuous"), resets()
    actor = make(group, recurrent=True)
    data = data_for(group, N_ENVS, LENGTH).set("is_init", starts)
    index, hidden = data[INDEX][:, 0], data["agents", "actor_hidden"][:, 0]
    steps = []
    for t in range(LENGTH):
        step = data[:, t].copy().set(INDEX, index).set(("agents", "actor_hidden"), hidden)
        steps.append(actor(step))
        index, hidden = steps[-1]["next", "agents", "sub_policy"], steps[-1]["next", "agents", "actor_hidden"]
    stepped = torch.stack(steps, 1)
    assert (stepped[INDEX][:, 0] != stepped[INDEX][:, -1]).any()
    with set_recurrent_mode(True):
        whole = actor.agent_network(stepped.select(*actor.agent_network.in_keys))
    for key in (("agents", "loc"), ("agents", "actor_hidden"), ("next", "agents", "actor_hidden")):
        torch.testing.assert_close(whole[key], stepped[key])


@pytest.mark.parametrize("recurrent", [False, True])
def test_one_agent_alone_does_what_it_does_among_all(recurrent: bool) -> None:
    group = group_spec(kind="continuous", action_mask=False)
    actor = make(group, recurrent)
    data = data_for(group, N_ENVS)
    among = actor(data.copy())
    for agent in range(3):
        own = {"observation": data["agents", "observation"][:, agent], "sub_policy": data[INDEX][:, agent]}
        own["actor_hidden"] = data["agents", "actor_hidden"][:, agent : agent + 1]
        alone = actor.for_agent(agent)(TensorDict({"agents": own, "is_init": data["is_init"]}, [N_ENVS]))
        torch.testing.assert_close(alone["agents", "action"], among["agents", "action"][:, agent])


def test_what_a_dead_agents_index_holds_breaks_nothing() -> None:
    group = group_spec(kind="continuous", mask=True)
    actor, data = make(group), data_for(group, N_ENVS)
    before = actor.agent_network(data.copy())["agents", "loc"]
    data[INDEX][:, 1] = 10**9
    after = actor.agent_network(data)["agents", "loc"]
    assert torch.equal(before[:, ::2], after[:, ::2])
    assert after.isfinite().all()


@pytest.mark.parametrize("key", ["is_init", INDEX])
def test_mistakes_are_named(key: Any) -> None:
    group = group_spec(kind="continuous")
    with pytest.raises(UserError, match=re.escape(f"key {key!r} is missing")) as caught:
        make(group)(data_for(group, N_ENVS).exclude(key))
    assert "make_tensordict_primer" in str(caught.value)
    with pytest.raises(UserError, match="size=0"):
        SubPolicyDraw(group, 0)
