"""Statistics of observations: whose count, who reads through them, and who has them."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn

from ctde_kit.errors import UserError
from ctde_kit.keys import PADDING_MASK, Key, normalized_key
from ctde_kit.modules import (
    AttentionCritic,
    FrozenActor,
    InferredPolicies,
    MeanMessages,
    MultiAgentActor,
    MultiAgentMLP,
    ObservationNorm,
    QMixer,
    QPLEXMixer,
    RandomOrderCritic,
    TeamChannel,
    action_value_critic,
    as_q_actor,
    own_observation,
    value_critic,
)
from ctde_kit.modules.networks.team_input import TeamInput
from ctde_kit.objectives import QMixLoss
from ctde_kit.specs import TeamSpec
from ctde_kit.testing import check_state
from ctde_kit.training import HardUpdate, PolyakUpdate
from tests.contracts.fakes import group_spec, make_actor, make_network, make_q_actor, observe

GROUPS = (
    group_spec("wolves", 3, observation_dim=5, mask=True, state_dim=6),
    group_spec("sheep", 2, observation_dim=4),
)
TEAM = TeamSpec(GROUPS, state_dim=7)
WOLVES, SHEEP = GROUPS
KEYS: list[Key] = ["state", WOLVES.keys.observation, WOLVES.keys.state, SHEEP.keys.observation]


def batch(*shape: int) -> TensorDictBase:
    """Features of different means and deviations, garbage where an agent is dead."""
    data = observe(TEAM, *shape)
    for key in KEYS:
        value = data.get(key)
        data.set(key, 3 + value * torch.arange(1.0, value.shape[-1] + 1))
    dead = ~data.get(WOLVES.keys.mask).unsqueeze(-1)
    for key in (WOLVES.keys.observation, WOLVES.keys.state):
        data.set(key, data.get(key).masked_fill(dead, torch.nan))
    return data


def used_norm() -> ObservationNorm:
    norm = ObservationNorm(TEAM)
    norm.update(batch(4, 7))
    return norm


def test_living_agents_of_all_envs_and_steps_count_and_nobody_else() -> None:
    norm = ObservationNorm(TEAM)
    data = [batch(4, 7) for _ in range(3)]
    padding = torch.rand(4, 7) < 0.8
    data[1].set(PADDING_MASK, padding)
    data[1].set("state", data[1]["state"].masked_fill(~padding.unsqueeze(-1), torch.inf))
    for part in data:
        norm.update(part)
    everywhere = torch.ones(4, 7, dtype=torch.bool)
    for key in KEYS:
        rows = []
        for part, steps in zip(data, (everywhere, padding, everywhere), strict=True):
            value = part.get(key)
            valid = steps if key == "state" else steps.unsqueeze(-1).expand(value.shape[:-1])
            rows.append(value[valid & part.get(WOLVES.keys.mask) if key[0] == "wolves" else valid].double())
        expected, moments = torch.cat(rows), norm.moments_of(key)
        assert moments.count == len(expected) < 3 * 4 * 7 * 3 + 1
        torch.testing.assert_close(moments.mean, expected.mean(0))
        torch.testing.assert_close(moments.variance, expected.var(0, correction=0))


def q_critic(sees: Any, **options: Any) -> nn.Module:
    return action_value_critic(TEAM, WOLVES, make_network(False), sees=sees, **options)


def critic(sees: Any, **options: Any) -> nn.Module:
    return value_critic(TEAM, WOLVES, make_network(False), sees=sees, **options)


def talking_actor() -> nn.Module:
    inputs = {group.name: own_observation(group) for group in TEAM}
    outputs = {group.name: group.action.n_parameters for group in TEAM}
    channel = TeamChannel(inputs, outputs, MeanMessages(8), hidden_size=8)
    return MultiAgentActor(WOLVES, TeamInput(inputs), channel.for_group("wolves")).module[0]


READERS: dict[str, Callable[[], nn.Module]] = {
    "actor": lambda: make_actor(WOLVES, agent_id=True).module[0],
    "q actor": lambda: make_q_actor(SHEEP).agent_network,
    "talking actor": talking_actor,
    **{f"critic of {sees}": partial(critic, sees) for sees in ("observation", "team", "state", "agent_state")},
    **{f"q critic of {sees}": partial(q_critic, sees) for sees in ("observation", "team", "state", "agent_state")},
    "own first": lambda: critic("team", heads="network", own_first=True),
    "random order": lambda: RandomOrderCritic(TEAM, critic("team")),
    "attention": lambda: AttentionCritic(TEAM, WOLVES, make_network(False), embed_dim=4, n_heads=2),
    "qmix": lambda: QMixer(TEAM, embed_dim=5, hypernet_cells=(6,)),
    "qplex": lambda: QPLEXMixer(TEAM, n_heads=2),
}


@pytest.mark.parametrize("name", READERS)
def test_every_network_reads_through_the_statistics(name: str) -> None:
    reader, norm, data = READERS[name](), used_norm(), batch(8)
    for group in TEAM:
        data.set(group.keys.action, torch.randint(6, (8, group.n_agents)))
        data.set(group.keys.action_vector, torch.randn(8, group.n_agents, group.action.vector_dim))
        for key in (group.keys.chosen_action_value, group.keys.max_action_value):
            data.set(key, torch.randn(8, group.n_agents, 1))
    standardized = norm(data.copy())
    for key in KEYS:
        standardized.set(key, standardized.get(normalized_key(key)))
    raw = deepcopy(data)
    expected, before = reader(standardized), reader(data.copy())
    norm.attach(reader)
    output = reader(data)
    for key in reader.out_keys:
        torch.testing.assert_close(output.get(key), expected.get(key))
        assert not torch.allclose(output.get(key), before.get(key))
    # What is stored are the env's observations.
    assert all(torch.equal(data.get(key).nan_to_num(), raw.get(key).nan_to_num()) for key in KEYS)


def test_beliefs_of_others_read_through_the_statistics() -> None:
    beliefs, norm, data = InferredPolicies(TEAM, partial(MultiAgentMLP, share_params=False)), used_norm(), batch(8)
    standardized = norm(data.copy())
    standardized.set(SHEEP.keys.observation, standardized.get(normalized_key(SHEEP.keys.observation)))
    expected = beliefs(standardized, "wolves", "sheep")
    norm.attach(beliefs)
    torch.testing.assert_close(beliefs(data, "wolves", "sheep"), expected)


def test_one_agent_alone_reads_what_it_reads_among_others() -> None:
    actor, norm, data = make_q_actor(SHEEP, agent_id=True), used_norm(), batch(8)
    norm.attach(actor)
    together = actor.agent_network(data.copy()).get(SHEEP.keys.action_value)
    for agent in range(2):
        alone = data.copy()
        alone.set(SHEEP.keys.observation, data.get(SHEEP.keys.observation)[:, agent])
        values = actor.agent_network.for_agent(agent)(alone).get(SHEEP.keys.action_value)
        torch.testing.assert_close(values.squeeze(-2), together[:, agent])


def test_networks_of_other_libraries_stand_behind_the_norm() -> None:
    norm, key, data = used_norm(), SHEEP.keys.observation, batch(8)
    network = TensorDictModule(nn.Linear(4, 6), [key], [SHEEP.keys.action_value])
    with pytest.raises(UserError, match=r"TensorDictModule reads \('sheep', 'observation'\) by itself"):
        norm.attach(network)
    behind = TensorDictSequential(norm, TensorDictModule(nn.Linear(4, 6), [normalized_key(key)], network.out_keys))
    behind[1].module.load_state_dict(network.module.state_dict())
    norm.attach(behind)
    expected = network.module(norm.moments_of(key)(data.get(key)))
    torch.testing.assert_close(behind(data.copy()).get(SHEEP.keys.action_value), expected)
    loss = QMixLoss({"sheep": as_q_actor(SHEEP, behind)}, gamma=0.9)
    assert_targets_share_statistics(loss, norm)


def assert_targets_share_statistics(loss: QMixLoss, norm: ObservationNorm) -> None:
    """Whichever rule moves targets, they read through the current statistics of the online networks."""
    assert loss.target_networks is not None
    own = {id(part) for part in norm.moments.values()}
    for rule in (PolyakUpdate(loss.online_networks(), loss.target_networks, 0.1), None):
        norm.update(batch(4, 7))
        before = {name: value.clone() for name, value in norm.state_dict().items()}
        (rule or HardUpdate(loss.online_networks(), loss.target_networks, 1))()
        assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    held = [part for part in loss.target_networks.modules() if type(part).__name__ == "RunningMoments"]
    assert held
    assert {id(part) for part in held} <= own
    online, targets = loss.online_networks().parameters(), loss.target_networks.parameters()
    assert not {id(parameter) for parameter in online} & {id(parameter) for parameter in targets}


def test_target_networks_share_the_statistics() -> None:
    actor, norm = make_q_actor(SHEEP), used_norm()
    mixer = QMixer(TeamSpec((SHEEP,), state_dim=7), embed_dim=5, hypernet_cells=(6,))
    norm.attach(actor, mixer)
    assert_targets_share_statistics(QMixLoss({"sheep": actor}, mixer, gamma=0.9), norm)


def test_statistics_that_are_attached_after_the_targets_were_copied_are_the_targets_too() -> None:
    actor, norm, data = make_q_actor(SHEEP), used_norm(), batch(8)
    loss = QMixLoss({"sheep": actor}, gamma=0.9)
    norm.attach(actor)
    assert_targets_share_statistics(loss, norm)
    assert loss.target_networks is not None
    target: Any = loss.target_networks["actor_sheep"]
    target.load_state_dict(actor.agent_network.state_dict())
    assert torch.equal(
        target(data.copy()).get(SHEEP.keys.action_value), actor(data.copy()).get(SHEEP.keys.action_value)
    )


def test_a_copy_keeps_its_statistics() -> None:
    actor, norm, data = make_actor(SHEEP), used_norm(), batch(8)
    norm.attach(actor)
    frozen = FrozenActor(actor)
    expected = frozen(data.copy()).get(SHEEP.keys.logits)
    norm.update(batch(5, 3).apply(lambda x: x + 1 if x.is_floating_point() else x))
    assert torch.equal(frozen(data.copy()).get(SHEEP.keys.logits), expected)
    assert not torch.equal(actor(data.copy()).get(SHEEP.keys.logits), expected)


def test_statistics_that_a_part_brings_are_taken_over_once() -> None:
    actor, brought, norm = make_q_actor(SHEEP), used_norm(), ObservationNorm(TEAM)
    brought.attach(actor)
    norm.attach(actor)
    key = SHEEP.keys.observation
    assert torch.equal(norm.moments_of(key).mean, brought.moments_of(key).mean)
    norm.update(batch(4, 7))
    after = norm.moments_of(key).mean.clone()
    brought.attach(other := make_q_actor(SHEEP))
    norm.attach(other)
    assert torch.equal(norm.moments_of(key).mean, after)
    assert not torch.equal(brought.moments_of(key).mean, after)


def test_all_of_its_state_is_saved_with_the_networks_that_read_through_it() -> None:
    data = batch(8)

    def use(norm: ObservationNorm) -> torch.Tensor:
        norm.update(batch(4, 7))
        return norm(data.copy()).get(normalized_key(WOLVES.keys.observation))

    check_state(ObservationNorm(TEAM), use)
    actor, norm = make_q_actor(SHEEP), used_norm()
    norm.attach(actor)
    fresh = make_q_actor(SHEEP)
    ObservationNorm(TEAM).attach(fresh)
    fresh.load_state_dict(actor.state_dict())
    key = SHEEP.keys.action_value
    assert torch.equal(fresh.agent_network(data.copy()).get(key), actor.agent_network(data.copy()).get(key))
