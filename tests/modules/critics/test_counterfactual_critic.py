"""The counterfactual critic: what each row reads, and that no agent's values depend on its own action."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ctde_kit.errors import UserError
from ctde_kit.modules import (
    AgentNetwork,
    CounterfactualCritic,
    MultiAgentCommNet,
    counterfactual_critic,
    own_observation,
)
from ctde_kit.specs import TeamSpec
from tests.contracts.fakes import group_spec, make_network
from tests.objectives.coma import cases
from tests.objectives.coma.cases import herd, make, rollout

LAYOUTS: list[dict[str, Any]] = [{}, {"sees": "state"}, {"sees": "agent_state"}, {"own_first": True, "agent_id": False}]


def all_living(team: TeamSpec) -> Any:
    batch = rollout(team, make(team)[0])
    batch["wolves", "mask"].fill_(True)
    return batch


@pytest.mark.parametrize("sees", ["team", "state", "agent_state"])
@pytest.mark.parametrize("name", ["wolves", "sheep"])
def test_rows_are_the_state_the_others_actions_and_the_agents_id(sees: Any, name: str) -> None:
    team = herd("one_hot")
    batch = rollout(team, make(team)[0])
    critic = counterfactual_critic(team, team[name], make_network(False), sees=sees)
    vectors = {group.keys.action_vector: group.action.vector(batch[group.keys.action]) for group in team}
    found = critic.agent_network.inputs(batch.copy().update(vectors))
    torch.testing.assert_close(found, cases.rows(batch, team, team[name], sees), rtol=0, atol=0)


def test_own_first_rows_begin_with_the_agents_own_observation_and_no_action() -> None:
    team = herd()
    batch = all_living(team)
    critic = counterfactual_critic(team, team["sheep"], make_network(False), own_first=True, agent_id=False)
    vectors = {group.keys.action_vector: group.action.vector(batch[group.keys.action]) for group in team}
    found = critic.agent_network.inputs(batch.copy().update(vectors))
    torch.testing.assert_close(found[..., :8], batch["sheep", "observation"])
    assert not found[..., team.observation_dim : team.observation_dim + 6].any()
    wolves = vectors[team["wolves"].keys.action_vector]
    at = team.observation_dim + 6
    torch.testing.assert_close(found[..., 0, at : at + 18], wolves.flatten(-2))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["categorical", "one_hot"])
def test_values_depend_on_the_others_actions_and_not_on_the_own(layout: dict[str, Any], kind: str) -> None:
    team = herd(kind)
    batch = all_living(team)
    for group in team:
        critic = counterfactual_critic(team, group, make_network(False, False), **layout)
        before = critic(batch.copy())[group.keys.action_value]
        assert before.shape == (*batch.shape, group.n_agents, 6)
        for other in team:
            for agent in range(other.n_agents):
                changed = batch.copy()
                action = changed[other.keys.action].clone()
                row = action[..., agent, :] if kind == "one_hot" else action[..., agent]
                row.copy_(row.roll(1, -1) if kind == "one_hot" else (row + 1) % 6)
                after = critic(changed.set(other.keys.action, action))[group.keys.action_value]
                moves = (after != before).flatten(0, -3).any(0).any(-1)
                for i in range(group.n_agents):
                    assert bool(moves[i]) is not (other is group and i == agent), (other.name, agent, i)


def test_dead_agents_actions_are_not_seen() -> None:
    team = herd()
    batch = rollout(team, make(team)[0])
    critic = counterfactual_critic(team, team["sheep"], make_network(False))
    before = critic(batch.copy())["sheep", "action_value"]
    dead = ~batch["wolves", "mask"]
    batch["wolves", "action"][dead] = 99
    batch["wolves", "observation"][dead] = torch.nan
    torch.testing.assert_close(critic(batch)["sheep", "action_value"], before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sees": "observation"}, "counterfactual_critic: sees='observation', expected one of team, state, agent"),
        ({"sees": "state", "own_first": True}, "own_first: a critic with sees='state' stacks no observations"),
        ({"make_network": make_network(True)}, "the network MultiAgentGRU is recurrent; give one such as"),
        ({"kind": "continuous"}, "group 'wolves' has continuous actions: COMA needs discrete actions"),
        ({"kind": "multi_discrete"}, "actions of kind 'multi_discrete': COMA needs one choice per agent"),
    ],
)
def test_layouts_that_make_no_counterfactual_critic_are_refused(options: dict[str, Any], message: str) -> None:
    options = dict(options)
    team = TeamSpec((group_spec("wolves", 3, options.pop("kind", "categorical")),), 10)
    with pytest.raises(UserError, match=message):
        counterfactual_critic(team, team["wolves"], options.pop("make_network", make_network(False)), **options)


def test_a_channel_would_tell_each_agent_its_own_action() -> None:
    group = group_spec()
    network = AgentNetwork(own_observation(group), MultiAgentCommNet(5, 6, 3), [group.keys.action_value])
    with pytest.raises(UserError, match="MultiAgentCommNet lets agents hear of each other's actions"):
        CounterfactualCritic(group, network)
