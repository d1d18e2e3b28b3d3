"""Every actor with every critic: the right shapes, and a finite gradient for every parameter."""

from __future__ import annotations

from typing import Any

import pytest

from ctde_kit.modules import ValueNorm, value_critic
from ctde_kit.objectives import AdvantageEstimator, MAPPOLoss
from ctde_kit.specs import GroupSpec, TeamSpec
from tests.contracts.covering import combinations
from tests.contracts.fakes import LENGTH, N_ENVS, SHARINGS, collect, endings, group_spec, make_actor, make_network

LAYOUTS = [
    ("observation", "one"),
    ("team", "one"),
    ("team", "agent"),
    ("team", "network"),
    ("state", "one"),
    ("state", "agent"),
    ("state", "network"),
    ("agent_state", "agent"),
]
ACTIONS = [
    ("continuous", False),
    ("categorical", False),
    ("categorical", True),
    ("one_hot", False),
    ("one_hot", True),
    ("multi_discrete", False),
    ("multi_discrete", True),
]


def two_groups(kind: str, action_mask: bool) -> TeamSpec:
    wolves = group_spec("wolves", 3, kind, action_mask=action_mask, state_dim=11)
    sheep = group_spec("sheep", 2, kind, action_mask=action_mask, state_dim=13, observation_dim=8, mask=True)
    return TeamSpec((wolves, sheep), state_dim=10)


def check_group(batch: Any, loss: MAPPOLoss, group: GroupSpec) -> None:
    for key in (group.keys.state_value, group.keys.advantage, group.keys.value_target):
        assert batch.get(key).shape == (N_ENVS, LENGTH, group.n_agents, 1)
    assert batch.get(group.keys.action_log_prob).shape == (N_ENVS, LENGTH, group.n_agents)
    losses = loss(batch)
    assert set(losses.keys()) == set(loss.out_keys)
    assert all(value.shape == () and value.isfinite() for value in losses.values())
    sum(value for name, value in losses.items() if name.startswith("loss_")).backward()
    for name, parameter in loss.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@combinations(action=ACTIONS, network=["mlp", "gru"], share=SHARINGS, layout=LAYOUTS)
def test_actor_and_critic_fit(action: tuple[str, bool], network: str, share: Any, layout: tuple[Any, Any]) -> None:
    recurrent, (sees, heads) = network == "gru", layout
    team = two_groups(*action)
    actors = {group.name: make_actor(group, recurrent, share) for group in team}
    batch, _ = collect(team, actors, *endings())
    for group in team:
        critic = value_critic(team, group, make_network(recurrent, share), sees=sees, heads=heads)
        norm = ValueNorm()
        AdvantageEstimator(critic, group.keys, gamma=0.9, lmbda=0.8, value_norm=norm)(batch)
        loss = MAPPOLoss(actors[group.name], critic, keys=group.keys, clip_value=0.2, value_norm=norm)
        check_group(batch, loss, group)


@pytest.mark.parametrize("share", SHARINGS)
@pytest.mark.parametrize("recurrent", [False, True], ids=["mlp", "gru"])
def test_an_actor_with_a_learned_scale_fits(recurrent: bool, share: Any) -> None:
    team = two_groups("continuous", False)
    actors = {group.name: make_actor(group, recurrent, share, learned_scale=True) for group in team}
    batch, _ = collect(team, actors, *endings())
    for group in team:
        critic = value_critic(team, group, make_network(recurrent, share))
        AdvantageEstimator(critic, group.keys, gamma=0.9, lmbda=0.8)(batch)
        loss = MAPPOLoss(actors[group.name], critic, keys=group.keys, clip_value=0.2)
        check_group(batch, loss, group)
        assert loss(batch)["approx_kl"].abs() < 1e-8
