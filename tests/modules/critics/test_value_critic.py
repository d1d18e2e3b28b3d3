"""State-value critics."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict import TensorDictBase
from torch import Tensor

from ctde_kit.errors import UserError
from ctde_kit.modules import AgentNetwork, value_critic
from ctde_kit.specs import TeamSpec
from tests.contracts.fakes import group_spec, make_network, observe

B = 4
WOLVES, SHEEP = group_spec("wolves", 3, state_dim=11), group_spec("sheep", 2, observation_dim=8)
TEAM = TeamSpec((WOLVES, SHEEP), state_dim=10)
CENTRALIZED = [("team", "one"), ("team", "agent"), ("team", "network"), ("state", "agent"), ("state", "network")]


def critic_of(sees: Any = "team", heads: Any = "agent", share: Any = True, **options: Any) -> AgentNetwork:
    return value_critic(TEAM, WOLVES, make_network(False, share), sees=sees, heads=heads, **options)


def values(critic: AgentNetwork, data: TensorDictBase) -> Tensor:
    return critic(data.copy())["wolves", "state_value"]


def moves(critic: AgentNetwork, data: TensorDictBase, key: Any) -> Tensor:
    """Whether the value of wolf i moves with row j of the entry ``key``, ``[3, rows]``."""

    def value(entry: Tensor) -> Tensor:
        return values(critic, data.copy().set(key, entry)).squeeze()

    return torch.autograd.functional.jacobian(value, data[key]).abs().sum((1, -1)) > 0


@pytest.mark.parametrize("heads", ["one", "agent", "network"])
def test_every_value_of_a_centralized_critic_sees_every_agent_of_every_group(heads: Any) -> None:
    critic, data = critic_of("team", heads), observe(TEAM, 1)
    assert moves(critic, data, ("wolves", "observation")).all()
    assert moves(critic, data, ("sheep", "observation")).all()
    assert not critic.decentralized


def test_a_decentralized_critic_sees_each_agents_own_observation() -> None:
    critic, data = critic_of("observation"), observe(TEAM, 1)
    assert torch.equal(moves(critic, data, ("wolves", "observation")), torch.eye(3).bool())
    assert critic.decentralized


def test_the_agent_state_is_each_agents_own() -> None:
    assert torch.equal(moves(critic_of("agent_state"), observe(TEAM, 1), ("wolves", "state")), torch.eye(3).bool())


@pytest.mark.parametrize("sees", ["team", "state"])
def test_one_head_gives_all_agents_one_value(sees: Any) -> None:
    value = values(critic_of(sees, "one"), observe(TEAM, B))
    assert value.shape == (B, 3, 1)
    assert torch.equal(value, value[:, :1].expand(B, 3, 1))


def test_heads_and_ids_and_networks_tell_agents_apart() -> None:
    data = observe(TEAM, B)
    for options in ({"heads": "agent"}, {"heads": "one", "agent_id": True}, {"heads": "network", "share": False}):
        value = values(critic_of(**options), data)
        assert value.shape == (B, 3, 1)
        assert not torch.allclose(value[:, 0], value[:, 1])


def test_a_head_is_an_output_of_one_pass() -> None:
    critic, data = critic_of("team", "agent"), observe(TEAM, B)
    outputs = critic.network(critic.inputs(data))
    assert outputs.shape == (B, 1, 3)
    assert torch.equal(values(critic, data).squeeze(-1), outputs.squeeze(1))


def fit(critic: AgentNetwork, data: TensorDictBase, target: Tensor) -> Tensor:
    """Values after learning ``target`` ``[3]`` in all states."""
    optimizer = torch.optim.Adam(critic.parameters(), 0.02)
    for _ in range(500):
        optimizer.zero_grad()
        (values(critic, data).squeeze(-1) - target).square().mean().backward()
        optimizer.step()
    return values(critic, data).detach().squeeze(-1)


@pytest.mark.parametrize(("heads", "expected"), [("agent", [1.0, 2.0, 6.0]), ("one", [3.0, 3.0, 3.0])])
def test_individual_returns_need_a_head_an_agent(heads: Any, expected: list[float]) -> None:
    data = observe(TEAM, 20)
    learned = fit(critic_of("team", heads), data, torch.tensor([1.0, 2.0, 6.0]))
    torch.testing.assert_close(learned, torch.tensor(expected).expand(20, 3), rtol=0, atol=0.1)


@pytest.mark.parametrize(("sees", "heads"), [("team", "network"), ("state", "network"), ("observation", "one")])
def test_unshared_critics_learn_from_their_own_loss_only(sees: Any, heads: Any) -> None:
    critic = critic_of(sees, heads, share=False)
    values(critic, observe(TEAM, B))[:, 1].square().sum().backward()
    for parameter in critic.parameters():
        assert parameter.grad is not None
        assert parameter.grad.flatten(1).any(1).tolist() == [False, True, False]


@pytest.mark.parametrize("garbage", [1e30, torch.inf, torch.nan])
@pytest.mark.parametrize("sees", ["observation", "team", "agent_state"])
@pytest.mark.parametrize("recurrent", [False, True], ids=["mlp", "gru"])
def test_dead_agents_change_no_value_and_no_gradient(sees: Any, recurrent: bool, garbage: float) -> None:
    group = group_spec("wolves", 3, state_dim=11, mask=True)
    team = TeamSpec((group, group_spec("sheep", 2, mask=True)))
    critic = value_critic(team, group, make_network(recurrent), sees=sees)
    data = observe(team, B).set("wolves_critic_hidden", torch.zeros(B, critic.inputs.n_agents, 12))
    data.set("is_init", torch.zeros(B, 1, dtype=torch.bool))
    results = []
    for fill in (0.0, garbage):
        for name in ("wolves", "sheep"):
            dead = ~data[name, "mask"]
            for key in set(data[name].keys()) - {"mask"}:
                data[name, key][dead] = fill
        value = values(critic, data)
        results.append([value.detach(), *torch.autograd.grad(value.square().sum(), list(critic.parameters()))])
    for clean, dirty in zip(*results, strict=True):
        assert torch.equal(clean, dirty)


def test_one_agents_critic_gives_one_value() -> None:
    critic, data = critic_of("observation", share=False), observe(TEAM, B)
    single = data.empty().set(("wolves", "observation"), data["wolves", "observation"][:, 1])
    alone = critic.for_agent(1)(single)["wolves", "state_value"]
    torch.testing.assert_close(alone, values(critic, data)[:, 1:2])


@pytest.mark.parametrize(("sees", "heads"), CENTRALIZED)
def test_a_centralized_critic_belongs_to_no_agent(sees: Any, heads: Any) -> None:
    with pytest.raises(UserError, match="other agents' data"):
        critic_of(sees, heads).for_agent(0)


@pytest.mark.parametrize("wrong", [{"sees": "teams"}, {"heads": "two"}])
def test_unknown_words_are_errors(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="expected one of"):
        critic_of(**wrong)


@pytest.mark.parametrize(
    ("sees", "message"),
    [("state", "no root key 'state'"), ("agent_state", r"no key \('sheep', 'state'\)")],
)
def test_an_env_without_the_state_is_an_error(sees: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        value_critic(TeamSpec((SHEEP,)), SHEEP, make_network(False), sees=sees)
