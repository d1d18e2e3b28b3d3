"""Deterministic actors: bounds, masks, exploration, gradients, one agent alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict import TensorDict, TensorDictBase
from torch import nn
from torchrl.envs.utils import ExplorationType, set_exploration_type

from ctde_kit.errors import UserError
from ctde_kit.modules import (
    GaussianNoise,
    GumbelNoise,
    MultiAgentDeterministicActor,
    OrnsteinUhlenbeckNoise,
    own_observation,
)
from ctde_kit.modules.actors.action_vectors import as_action
from ctde_kit.specs import GroupSpec, TeamSpec
from tests.contracts.fakes import HIDDEN, KINDS, group_spec, make_network, observe

BATCH = 50


def make(group: GroupSpec, noise: nn.Module | None = None, recurrent: bool = False) -> MultiAgentDeterministicActor:
    network = make_network(recurrent, False)(group.observation_dim, group.action.vector_dim, group.n_agents)
    return MultiAgentDeterministicActor(group, own_observation(group), network, noise)


def data_for(group: GroupSpec, *batch: int) -> TensorDictBase:
    data = observe(TeamSpec((group,)), *batch).set("is_init", torch.zeros(*batch, 1, dtype=torch.bool))
    data.set(group.keys.hidden("actor"), torch.randn(*batch, group.n_agents, HIDDEN))
    return data.set(group.keys.noise, torch.zeros(*batch, group.n_agents, group.action.vector_dim))


def explore(actor: Any, data: TensorDictBase) -> TensorDictBase:
    with set_exploration_type(ExplorationType.RANDOM):
        return actor(data.copy())


@pytest.mark.parametrize("noise", [GaussianNoise, OrnsteinUhlenbeckNoise])
def test_noisy_actions_stay_within_each_agents_bounds(noise: Any) -> None:
    group = group_spec(kind="continuous")
    actor, data = make(group, noise(group, 50.0)), data_for(group, BATCH)
    action = explore(actor, data)["agents", "action"]
    low, high = torch.tensor(group.action.low), torch.tensor(group.action.high)
    assert ((action >= low) & (action <= high)).all()
    for bound in (low, high):
        assert (action == bound).any(0).all(), "with so much noise every agent reaches its bounds"
    nn.init.constant_(actor.agent_network.network.layers[-1].bias, 100.0)
    torch.testing.assert_close(actor(data)["agents", "action"], high.expand(BATCH, -1, -1))


def test_there_is_no_noise_outside_collection() -> None:
    for kind, noise in (
        ("continuous", GaussianNoise),
        ("continuous", OrnsteinUhlenbeckNoise),
        ("categorical", GumbelNoise),
    ):
        group = group_spec(kind=kind)
        actor, data = make(group, noise(group, 1.0)), data_for(group, BATCH)
        with set_exploration_type(ExplorationType.DETERMINISTIC):
            first, second = (actor(data.copy())["agents", "action"] for _ in range(2))
        assert torch.equal(first, second)
        assert not torch.equal(explore(actor, data)["agents", "action"], first)
        actor.noise.scale.zero_()
        assert torch.equal(explore(actor, data)["agents", "action"], first)


def test_gaussian_noise_has_the_deviation_that_it_says() -> None:
    group = group_spec(kind="continuous")
    noise = GaussianNoise(group, 0.3)
    drawn = noise(TensorDict({}, [20_000]), torch.zeros(20_000, 3, 2))
    half = (torch.tensor(group.action.high) - torch.tensor(group.action.low)) / 2
    torch.testing.assert_close(drawn.std(0), 0.3 * half, rtol=0.05, atol=0)


def test_ornstein_uhlenbeck_by_hand() -> None:
    group = group_spec(kind="continuous")
    noise = OrnsteinUhlenbeckNoise(group, 0.5, theta=0.2, sigma=0.0, dt=2.0)
    data = data_for(group, 2).set(("agents", "noise"), torch.ones(2, 3, 2))
    data["is_init"][1] = True
    half = (torch.tensor(group.action.high) - torch.tensor(group.action.low)) / 2
    action = noise(data, torch.zeros(2, 3, 2))
    torch.testing.assert_close(action[0], 0.5 * half * (1 - 0.2 * 2))
    assert not action[1].any(), "an episode starts from zero"
    assert data["agents", "noise"][1].eq(0).all()
    torch.testing.assert_close(data["next", "agents", "noise"][0], torch.full((3, 2), 0.6))
    noise.sigma = 0.7
    data = data_for(group, 3000)
    steps = noise(data, torch.zeros(3000, 3, 2)) / half / 0.5
    torch.testing.assert_close(steps.std(), torch.tensor(0.7 * 2**0.5), rtol=0.03, atol=0)
    with pytest.raises(UserError, match=r"make_tensordict_primer"):
        noise(TensorDict({"is_init": torch.zeros(2, 1, dtype=torch.bool)}, [2]), torch.zeros(2, 3, 2))


def test_gumbel_noise_samples_the_softmax() -> None:
    group = group_spec()
    noise = GumbelNoise(group, 1.0)
    logits = torch.randn(6)
    sampled = noise(TensorDict({}, [20_000]), logits.expand(20_000, 3, 6)).argmax(-1)
    shares = torch.nn.functional.one_hot(sampled).float().mean((0, 1))
    torch.testing.assert_close(shares, logits.softmax(-1), rtol=0, atol=0.01)


@pytest.mark.parametrize("kind", ["categorical", "one_hot", "multi_discrete"])
def test_masked_actions_are_never_taken(kind: str) -> None:
    group = group_spec(kind=kind, action_mask=True)
    actor, data = make(group, GumbelNoise(group, 3.0)), data_for(group, BATCH)
    mask = data["agents", "action_mask"]
    output = explore(actor, data)
    vectors = [
        actor.group.action.vector(output["agents", "action"]),
        actor.greedy_vector(output),
        actor.differentiable_vector(output),
    ]
    for vector in vectors:
        start = 0
        for size in group.action.sizes:
            part, allowed = vector[..., start : start + size], mask[..., start : start + size]
            assert part.sum(-1).allclose(torch.ones(BATCH, 3))
            nothing = ~allowed.any(-1)
            assert part[..., 0][nothing].allclose(torch.ones(())), "nothing allowed: the no-op"
            assert not part.masked_fill(allowed, 0)[~nothing].any()
            start += size


def test_discrete_gradients_are_those_of_the_softmax() -> None:
    group = group_spec(kind="multi_discrete")
    actor = make(group)
    data = actor(data_for(group, BATCH))
    logits = data["agents", "logits"].detach().requires_grad_(True)
    data["agents", "logits"] = logits
    weights = torch.randn(8)
    torch.manual_seed(1)
    vector = actor.differentiable_vector(data)
    assert torch.equal(vector, group.action.vector(as_action(group.action, vector))), "hard forward"
    (found,) = torch.autograd.grad((vector * weights).sum(), logits)
    torch.manual_seed(1)
    noisy = logits - torch.empty(logits.shape).exponential_().log()
    soft = torch.cat([part.softmax(-1) for part in noisy.split([2, 6], -1)], -1)
    (expected,) = torch.autograd.grad((soft * weights).sum(), logits)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_actions_and_vectors(kind: str) -> None:
    group = group_spec(kind=kind)
    action = explore(make(group), data_for(group, BATCH))["agents", "action"]
    vector = group.action.vector(action)
    assert vector.shape == (BATCH, 3, group.action.vector_dim)
    assert torch.equal(as_action(group.action, vector), action)


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_one_agent_alone_does_what_it_does_among_all(kind: str, recurrent: bool) -> None:
    group = group_spec(kind=kind, action_mask=kind != "continuous", observation_dim=5)
    actor, data = make(group, recurrent=recurrent), data_for(group, BATCH)
    together = actor(data.copy())
    for agent in range(3):
        own = TensorDict({"is_init": data["is_init"]}, [BATCH])
        own["agents", "observation"] = data["agents", "observation"][:, agent]
        own["agents", "actor_hidden"] = data["agents", "actor_hidden"][:, agent : agent + 1]
        if group.action_mask:
            own["agents", "action_mask"] = data["agents", "action_mask"][:, agent]
        alone = actor.for_agent(agent)(own)["agents", "action"]
        torch.testing.assert_close(alone, together["agents", "action"][:, agent])
    with pytest.raises(UserError, match="has agents 0 to 2"):
        actor.for_agent(3)
    assert actor.decentralized


def test_noise_of_the_wrong_kind_is_an_error() -> None:
    with pytest.raises(UserError, match="use GumbelNoise"):
        GaussianNoise(group_spec(), 0.1)
    with pytest.raises(UserError, match="use GumbelNoise"):
        OrnsteinUhlenbeckNoise(group_spec(), 0.1)
    with pytest.raises(UserError, match="use GaussianNoise"):
        GumbelNoise(group_spec(kind="continuous"))
