"""The order in which critics see agents."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from ctde_kit.errors import UserError
from ctde_kit.graph import trace
from ctde_kit.modules import RandomOrderCritic, action_value_critic, value_critic
from ctde_kit.objectives.maddpg.joint_actions import own_action_values, own_rows, values_of_rows
from ctde_kit.specs import TeamSpec
from tests.contracts.fakes import group_spec, make_network, observe

B = 5
WOLVES = group_spec("wolves", 3, "continuous", mask=True)
SHEEP = group_spec("sheep", 2, "continuous", observation_dim=8)
TEAM = TeamSpec((WOLVES, SHEEP))
GROUPS = [WOLVES, SHEEP]


def act(data: TensorDict) -> TensorDict:
    for group in TEAM:
        data[group.name, "action_vector"] = torch.randn(*data.shape, group.n_agents, group.action.vector_dim)
    return data


def blocks(data: TensorDict, name: str) -> dict[tuple[str, int], Tensor]:
    """The entry of each agent, zero where it is dead."""
    alive = {"wolves": data["wolves", "mask"], "sheep": torch.ones(B, 2, dtype=torch.bool)}
    return {(g.name, i): data[g.name, name][:, i] * alive[g.name][:, i, None] for g in TEAM for i in range(g.n_agents)}


def own_first(data: TensorDict, own: tuple[str, int], names: list[str]) -> Tensor:
    row = []
    for name in names:
        entries = blocks(data, name)
        row.append(entries.pop(own))
        row += entries.values()
    return torch.cat(row, -1)


@pytest.mark.parametrize("group", GROUPS, ids=lambda g: g.name)
def test_values_are_of_rows_that_begin_with_the_own_observation(group: Any) -> None:
    critic = value_critic(TEAM, group, make_network(False, share=False), heads="network", own_first=True)
    data = observe(TEAM, B)
    values = critic(data.copy())[group.name, "state_value"]
    for i in range(group.n_agents):
        row = own_first(data, (group.name, i), ["observation"])
        expected = critic.network.for_agent(i)(row.unsqueeze(-2))
        torch.testing.assert_close(values[:, i : i + 1], expected)


@pytest.mark.parametrize("group", GROUPS, ids=lambda g: g.name)
def test_action_values_are_of_rows_that_begin_with_the_own_observation_and_action(group: Any) -> None:
    critic = action_value_critic(TEAM, group, make_network(False, share=False), heads="network", own_first=True)
    data = act(observe(TEAM, B))
    values = critic(data.copy())[group.name, "state_action_value"]
    for i in range(group.n_agents):
        row = own_first(data, (group.name, i), ["observation", "action_vector"])
        expected = critic.agent_network.network.for_agent(i)(row.unsqueeze(-2))
        torch.testing.assert_close(values[:, i : i + 1], expected)


def test_one_shared_network_tells_agents_apart_by_what_is_first() -> None:
    critic = value_critic(TEAM, SHEEP, make_network(False), heads="network", own_first=True)
    data = observe(TEAM, B)
    values = critic(data.copy())["sheep", "state_value"]
    assert not torch.allclose(values[:, 0], values[:, 1])
    swapped = data.copy().set(("sheep", "observation"), data["sheep", "observation"].flip(1))
    torch.testing.assert_close(critic(swapped)["sheep", "state_value"], values.flip(1))


def random_critic(group: Any, actions: bool, **options: Any) -> tuple[RandomOrderCritic, Any]:
    make = action_value_critic if actions else value_critic
    share = options.get("heads") != "network"
    inner = make(TEAM, group, make_network(False, share), **options)
    return RandomOrderCritic(TEAM, inner), inner


def arranged(data: TensorDict, b: int) -> TensorDict:
    """Sample ``b`` with its agents in order, one by one."""
    shown = TensorDict({}, [1])
    for group in TEAM:
        order = data[group.name, "order"][b].tolist()
        for key in [key for key in ("observation", "action_vector", "mask") if (group.name, key) in data.keys(True)]:
            shown[group.name, key] = torch.stack([data[group.name, key][b, agent] for agent in order]).unsqueeze(0)
    return shown


LAYOUTS: dict[str, dict[str, Any]] = {
    "heads": {},
    "one": {"heads": "one"},
    "ids": {"agent_id": True},
    "networks": {"heads": "network"},
}


@pytest.mark.parametrize("actions", [False, True], ids=["V", "Q"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("group", GROUPS, ids=lambda g: g.name)
def test_observations_actions_and_values_follow_one_order(group: Any, layout: str, actions: bool) -> None:
    critic, inner = random_critic(group, actions, **LAYOUTS[layout])
    data = critic.draw_order(act(observe(TEAM, B)))
    key = (group.name, "state_action_value" if actions else "state_value")
    values = critic(data.copy())[key]
    for b in range(B):
        out = inner(arranged(data, b))[key][0]
        for place, agent in enumerate(data[group.name, "order"][b].tolist()):
            # One network per agent is the agent's own, wherever it stands.
            expected = out[agent] if layout == "networks" else out[place]
            torch.testing.assert_close(values[b, agent], expected)


@pytest.mark.parametrize("actions", [False, True], ids=["V", "Q"])
def test_without_an_order_agents_stand_in_their_own(actions: bool) -> None:
    critic, inner = random_critic(SHEEP, actions)
    data = act(observe(TEAM, B))
    key = critic.out_keys[0]
    assert torch.equal(critic(data.copy())[key], inner(data.copy())[key])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_own_action_is_swapped_where_the_agent_stands(layout: str) -> None:
    critic, _ = random_critic(WOLVES, True, **LAYOUTS[layout])
    data = critic.draw_order(act(observe(TEAM, B)))
    data["wolves", "mask"] = torch.ones(B, 3, dtype=torch.bool)
    own = torch.randn(B, 3, 2)
    rows = {"wolves": own_rows(data["wolves", "action_vector"], own)}
    plain = values_of_rows(critic, WOLVES.keys, data, rows)
    torch.testing.assert_close(own_action_values(critic, WOLVES.keys, data, own), plain)
    for i in range(3):
        alone = data.clone()
        alone["wolves", "action_vector"][:, i] = own[:, i]
        torch.testing.assert_close(plain[:, i], critic(alone)["wolves", "state_action_value"][:, i])


def test_an_order_is_one_a_sample_the_same_now_and_next() -> None:
    critic, _ = random_critic(WOLVES, False)
    data = observe(TEAM, 400).set("next", observe(TEAM, 400))
    drawn = critic.draw_order(data.copy())
    for group in TEAM:
        order = drawn[group.name, "order"]
        assert torch.equal(drawn["next", group.name, "order"], order)
        assert torch.equal(order.sort(-1).values, torch.arange(group.n_agents).expand(400, -1))
    # Each agent stands in each place about equally often: 133 times of 400, deviation 9.4.
    counts = torch.nn.functional.one_hot(drawn["wolves", "order"]).sum(0)
    assert counts.min() > 90
    assert counts.max() < 176


def test_a_sequence_keeps_its_order() -> None:
    critic, _ = random_critic(WOLVES, False)
    order = critic.draw_order(observe(TEAM, 40, 6))["wolves", "order"]
    assert order.shape == (40, 6, 3)
    assert torch.equal(order, order[:, :1].expand(-1, 6, -1))
    assert len(order[:, 0].unique(dim=0)) == 6


def test_an_order_that_is_there_is_kept() -> None:
    critic, _ = random_critic(WOLVES, False)
    order = torch.tensor([2, 0, 1]).expand(B, 3)
    assert torch.equal(critic.draw_order(observe(TEAM, B).set(("wolves", "order"), order))["wolves", "order"], order)


def test_a_graph_draws_what_the_plain_function_draws() -> None:
    critic, _ = random_critic(WOLVES, False)

    def value(leaves: list[Tensor]) -> list[Tensor]:
        data = TensorDict({"wolves": {"observation": leaves[0], "mask": leaves[1]}}, [B])
        data["sheep", "observation"] = leaves[2]
        return [critic(critic.draw_order(data))["wolves", "state_value"]]

    traced, other = observe(TEAM, B), observe(TEAM, B)
    keys = [("wolves", "observation"), ("wolves", "mask"), ("sheep", "observation")]
    graph = trace(value, [traced[key] for key in keys], critic.parameters())
    leaves = [other[key] for key in keys]
    for seed in (1, 2):
        torch.manual_seed(seed)
        found = graph([*leaves, *graph.draw()])[0]
        torch.manual_seed(seed)
        torch.testing.assert_close(found, value(leaves)[0])


@pytest.mark.parametrize("options", [{"heads": "agent"}, {"heads": "one"}, {"sees": "observation"}])
@pytest.mark.parametrize("make", [value_critic, action_value_critic])
def test_own_first_needs_a_row_an_agent(make: Any, options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"own_first: .*use (heads='network'|sees='team')"):
        make(TEAM, SHEEP, make_network(False), own_first=True, **options)
