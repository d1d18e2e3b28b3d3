"""Attention of agents over agents, and the critics that use it."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from ctde_kit.errors import UserError
from ctde_kit.graph import trace
from ctde_kit.modules import AttentionCritic, MultiAgentDeterministicActor, own_observation
from ctde_kit.modules.critics.agent_attention import AgentAttention
from ctde_kit.modules.networks.linear import AgentLinear
from ctde_kit.objectives import AdvantageEstimator, MADDPGLoss, MAPPOLoss
from ctde_kit.objectives.maddpg.joint_actions import own_rows, values_of_rows
from ctde_kit.specs import TeamSpec
from tests.contracts.fakes import collect, endings, group_spec, make_actor, make_network, observe
from tests.objectives.maddpg import formulas
from tests.objectives.maddpg.test_loss import gradients

B, EMBED, HEADS = 5, 6, 2
WOLVES = group_spec("wolves", 3, "continuous")
SHEEP = group_spec("sheep", 2, "continuous", observation_dim=8)
MORTAL = (group_spec("wolves", 3, "continuous", mask=True), group_spec("sheep", 2, "continuous", observation_dim=8))
TEAMS = {
    "one": TeamSpec((WOLVES,)),
    "two": TeamSpec((WOLVES, SHEEP)),
    "mortal": TeamSpec(MORTAL),
    "mortal alone": TeamSpec(MORTAL[:1]),
}

pytestmark = pytest.mark.usefixtures("float64")


def critic_of(team: TeamSpec, name: str, of_actions: bool, share: Any = True, **options: Any) -> AttentionCritic:
    factory = make_network(False, share)
    return AttentionCritic(
        team,
        team[name],
        factory,
        of_actions=of_actions,
        embed_dim=EMBED,
        n_heads=HEADS,
        share_params=share,
        **options,
    )


def observe_and_act(team: TeamSpec) -> TensorDict:
    data = observe(team, B)
    for group in team:
        data[group.name, "action_vector"] = torch.randn(B, group.n_agents, group.action.vector_dim)
    if team["wolves"].mask:
        alive = [[True, True, True], [True, False, True], [False, False, True], [False, True, False], [False] * 3]
        data["wolves", "mask"] = torch.tensor(alive)
    return data


def attend(attention: AgentAttention, i: int, own: Tensor, team: Tensor, alive: list[bool]) -> tuple[Tensor, Tensor]:
    """One agent of one sample, by the formula; ``own`` is how it sees itself."""
    size = EMBED // HEADS
    others = [j for j in range(len(team)) if j != i and alive[j]]
    seen = others or [i] * alive[i]
    gathered, weights = [], torch.zeros(HEADS, len(team))
    for head in range(HEADS):
        rows = slice(head * size, (head + 1) * size)
        wq, wk, wv = (part.weight[rows] for part in (attention.query, attention.key, attention.value))
        embedded = {j: own if j == i else team[j] for j in seen}
        scores = torch.stack([(wq @ own) @ (wk @ e) / math.sqrt(size) for e in embedded.values()] or [torch.zeros(())])
        mine = torch.zeros(size)
        for weight, j in zip(scores.softmax(0), seen, strict=False):
            mine = mine + weight * torch.nn.functional.leaky_relu(wv @ embedded[j])
            weights[head, j] = weight.detach()
        gathered.append(mine)
    return torch.cat(gathered), weights


def by_hand(critic: AttentionCritic, data: TensorDict, b: int, i: int, action: Tensor | None = None) -> Any:
    """Agent i's value in sample b, where it alone may take another action, and its weights by head."""
    agents = [(index, agent) for index, group in enumerate(critic.team) for agent in range(group.n_agents)]
    groups, place = list(critic.team), agents.index((critic.team.groups.index(critic.group), i))

    def embed(index: int, agent: int, takes: Tensor | None = None) -> Tensor:
        group, layer = groups[index], cast(AgentLinear, critic.encoders[index])
        features = [data[group.name, "observation"][b, agent]]
        if critic.value_key[-1] == "state_action_value":
            features.append(data[group.name, "action_vector"][b, agent] if takes is None else takes)
        x = torch.cat(features) * alive(index, agent)
        return torch.nn.functional.leaky_relu(layer.weight[layer.sets[agent]] @ x + layer.bias[layer.sets[agent]])

    def alive(index: int, agent: int) -> bool:
        return not groups[index].mask or bool(data[groups[index].name, "mask"][b, agent])

    own = embed(*agents[place], action)
    others = torch.stack([embed(*agent) for agent in agents])
    attended, weights = attend(critic.attention, place, own, others, [alive(*agent) for agent in agents])
    head: Any = critic.head
    return head.for_agent(i)(torch.cat([own, attended]).unsqueeze(0)).squeeze(), weights


@pytest.mark.parametrize("of_actions", [False, True], ids=["V", "Q"])
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize(
    ("team", "name"),
    [
        ("one", "wolves"),
        ("two", "wolves"),
        ("two", "sheep"),
        ("mortal", "wolves"),
        ("mortal alone", "wolves"),
        ("mortal", "sheep"),
    ],
)
def test_values_and_weights_are_the_papers(team: str, name: str, share: bool, of_actions: bool) -> None:
    critic = critic_of(TEAMS[team], name, of_actions, share)
    data = observe_and_act(TEAMS[team])
    found = critic(data.copy())
    for b in range(B):
        for i in range(critic.group.n_agents):
            value, weights = by_hand(critic, data, b, i)
            torch.testing.assert_close(found[name, critic.value_key[-1]][b, i, 0], value, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(found[name, "attention_weight"][b, i], weights.mean(0), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("team", "name"),
    [("one", "wolves"), ("two", "sheep"), ("mortal", "wolves"), ("mortal alone", "wolves"), ("mortal", "sheep")],
)
def test_the_own_action_alone_is_another(team: str, name: str) -> None:
    critic = critic_of(TEAMS[team], name, True, share=False)
    data, keys = observe_and_act(TEAMS[team]), critic.group.keys
    own = torch.randn(B, critic.group.n_agents, 2)
    found = critic.own_action_values(data, own)
    for b in range(B):
        for i in range(critic.group.n_agents):
            value, _ = by_hand(critic, data, b, i, own[b, i])
            torch.testing.assert_close(found[b, i, 0], value, rtol=1e-9, atol=1e-9)
    plain = values_of_rows(critic, keys, data, {name: own_rows(data[keys.action_vector], own)})
    torch.testing.assert_close(found, plain, rtol=1e-9, atol=1e-9)


def test_rows_sum_to_one_and_dead_agents_get_nothing() -> None:
    data = critic_of(TEAMS["mortal"], "wolves", False)(observe_and_act(TEAMS["mortal"]))
    weight, alive = data["wolves", "attention_weight"], data["wolves", "mask"]
    assert weight.shape == (B, 3, 5)
    assert not weight.requires_grad
    torch.testing.assert_close(weight.sum(-1), torch.ones(B, 3))
    assert not weight[..., :3].masked_select(~alive.unsqueeze(1)).any()
    assert (weight[..., :3].masked_select(alive.unsqueeze(1) & ~torch.eye(3, dtype=torch.bool)) > 0).all()
    assert not weight[..., :3].diagonal(dim1=-2, dim2=-1).any()


def test_the_last_agent_alive_attends_to_itself_and_nobody_to_nobody() -> None:
    team = TeamSpec(MORTAL[:1])
    critic, data = critic_of(team, "wolves", False), observe(team, 3)
    data["wolves", "mask"] = torch.tensor([[False, True, False], [False, False, False], [True, True, False]])
    found = critic(data)
    weight = found["wolves", "attention_weight"]
    assert torch.equal(weight[0], torch.tensor([[0.0, 1.0, 0.0]]).expand(3, 3))
    assert not weight[1].any()
    assert torch.equal(weight[2], torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], weight[2, 2].tolist()]))
    torch.testing.assert_close(weight[2, 2].sum(), torch.ones(()))
    assert found["wolves", "state_value"].isfinite().all()


def test_a_single_agent_attends_to_itself() -> None:
    team = TeamSpec((group_spec("wolf", 1, "continuous"),))
    assert torch.equal(
        critic_of(team, "wolf", False)(observe(team, B))["wolf", "attention_weight"], torch.ones(B, 1, 1)
    )


@pytest.mark.parametrize("garbage", [1e30, torch.inf, torch.nan])
def test_dead_agents_change_no_value_and_no_gradient(garbage: float) -> None:
    team = TEAMS["mortal"]
    critic, data = critic_of(team, "wolves", True), observe_and_act(team)
    results = []
    for fill in (0.0, garbage):
        for key in ("observation", "action_vector"):
            data["wolves", key][~data["wolves", "mask"]] = fill
        value = critic(data.copy())["wolves", "state_action_value"]
        found = torch.autograd.grad(value.square().sum(), list(critic.parameters()))
        results.append([value.detach(), *found])
    for clean, dirty in zip(*results, strict=True):
        assert clean.isfinite().all()
        assert torch.equal(clean, dirty)


@pytest.mark.parametrize("of_actions", [False, True], ids=["V", "Q"])
@pytest.mark.parametrize("team", ["two", "mortal"])
def test_permuted_agents_have_permuted_values(team: str, of_actions: bool) -> None:
    critic, data = critic_of(TEAMS[team], "wolves", of_actions), observe_and_act(TEAMS[team])
    wolves, sheep = torch.tensor([2, 0, 1]), torch.tensor([1, 0])
    permuted = data.clone()
    for name, order in (("wolves", wolves), ("sheep", sheep)):
        for key in ("observation", "action_vector", *["mask"] * (name == "wolves" and team == "mortal")):
            permuted[name, key] = data[name, key][:, order]
    before, after = critic(data), critic(permuted)
    key = critic.value_key
    torch.testing.assert_close(after[key], before[key][:, wolves])
    columns = torch.cat([wolves, 3 + sheep])
    weight = before["wolves", "attention_weight"]
    torch.testing.assert_close(after["wolves", "attention_weight"], weight[:, wolves][:, :, columns])
    assert not torch.allclose(weight, weight[:, wolves])


def test_an_agent_id_and_sets_of_parameters_tell_agents_apart() -> None:
    team = TEAMS["one"]
    data = observe(team, B)
    data["wolves", "observation"] = data["wolves", "observation"][:, :1].expand(B, 3, 5)
    for options, alike in (({}, True), ({"agent_id": True}, False), ({"share": False}, False)):
        value = critic_of(team, "wolves", False, **options)(data)["wolves", "state_value"]
        assert torch.allclose(value[:, 0], value[:, 1]) is alike


def test_heads_divide_the_embedding() -> None:
    with pytest.raises(UserError, match="n_heads=4, expected a divisor of embed_dim=6"):
        AgentAttention(6, 4)


@pytest.mark.parametrize("other_actions", ["replay", "current"])
@pytest.mark.parametrize("team", ["one", "two"])
def test_maddpgs_loss_and_gradients_are_the_papers(team: str, other_actions: Any) -> None:
    actors, critics, spec = {}, {}, TEAMS[team]
    for group in spec:
        network = make_network(False, False)(group.observation_dim, 2, group.n_agents)
        actors[group.name] = MultiAgentDeterministicActor(group, own_observation(group), network)
        critics[group.name] = critic_of(spec, group.name, True)
    loss = MADDPGLoss(actors, critics, gamma=0.9, other_actions=other_actions, **formulas.PLAIN)
    for parameter in loss.target_networks.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    batch = formulas.transitions(actors, spec, B)
    found, current = loss(batch), other_actions == "current"
    policy, value = formulas.losses(loss, actors, critics, batch, gamma=0.9, current=current)
    torch.testing.assert_close(found["loss_actor"], policy, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found["loss_value"], value, rtol=1e-9, atol=1e-9)
    ours = gradients(found["loss_actor"] + found["loss_value"], loss)
    of_actors = {id(p) for actor in actors.values() for p in actor.parameters()}
    learned = [parameter for parameter in loss.parameters() if parameter.requires_grad]
    theirs = zip(gradients(policy, loss), gradients(value, loss), strict=True)
    for parameter, mine, (of_policy, of_value) in zip(learned, ours, theirs, strict=True):
        expected = of_policy if id(parameter) in of_actors else of_value
        assert mine.any()
        torch.testing.assert_close(mine, expected, rtol=1e-6, atol=1e-9)


def test_mappo_learns_with_it() -> None:
    torch.set_default_dtype(torch.float32)
    team = TEAMS["mortal"]
    actors = {group.name: make_actor(group) for group in team}
    batch, _ = collect(team, actors, *endings())
    for group in team:
        critic = critic_of(team, group.name, False)
        AdvantageEstimator(critic, group.keys, gamma=0.9, lmbda=0.8)(batch)
        loss = MAPPOLoss(actors[group.name], critic, keys=group.keys)
        losses = loss(batch)
        losses["loss_critic"].backward()
        assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in critic.parameters())


def test_it_is_one_graph() -> None:
    team = TEAMS["mortal"]
    critic, traced, other = critic_of(team, "wolves", False), observe(team, B), observe(team, B)
    keys = [("wolves", "observation"), ("wolves", "mask"), ("sheep", "observation")]

    def value(leaves: list[Tensor]) -> list[Tensor]:
        data = TensorDict({}, [B])
        for key, leaf in zip(keys, leaves, strict=True):
            data[key] = leaf
        found = critic(data)
        return [found["wolves", "state_value"], found["wolves", "attention_weight"]]

    graph = trace(value, [traced[key] for key in keys], critic.parameters())
    leaves = [other[key] for key in keys]
    for found, expected in zip(graph(leaves), value(leaves), strict=True):
        torch.testing.assert_close(found, expected)
