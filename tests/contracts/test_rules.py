"""The kit's own parts keep every rule of the doctor, ``ctde_kit.testing``."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict import TensorDictBase

from ctde_kit.modules import (
    GaussianNoise,
    MultiAgentDeterministicActor,
    QMixer,
    QPLEXMixer,
    ValueNorm,
    VDNMixer,
    own_observation,
    value_critic,
)
from ctde_kit.objectives import AdvantageEstimator, MAPPOLoss, QMixLoss, TDLambdaReturn, TeamReward
from ctde_kit.specs import GroupSpec, TeamSpec
from ctde_kit.testing import (
    check_deterministic_loss,
    check_mixer,
    check_policy,
    check_policy_gradient_loss,
    check_state,
    check_value_loss,
)
from tests.contracts.fakes import (
    KINDS,
    SHARINGS,
    collect,
    endings,
    group_spec,
    make_actor,
    make_network,
    make_q_actor,
    with_hidden,
)
from tests.contracts.test_maddpg_sizes import make as make_maddpg

# Every kind with every sharing, and a recurrent one of each kind.
STOCHASTIC = [
    *((kind, share, False) for kind in KINDS for share in SHARINGS),
    *((kind, share, True) for kind, share in zip(KINDS, (*SHARINGS, False), strict=True)),
]
either_front = pytest.mark.parametrize("recurrent", [False, True], ids=["mlp", "gru"])


def two_groups(kind: str) -> TeamSpec:
    masked = kind != "continuous"
    wolves = group_spec("wolves", 3, kind, action_mask=masked)
    return TeamSpec((wolves, group_spec("sheep", 2, kind, action_mask=masked, observation_dim=8, mask=True)), 10)


def experience(team: TeamSpec, actors: dict[str, Any]) -> TensorDictBase:
    return collect(team, actors, *endings())[0]


def padded(batch: TensorDictBase) -> TensorDictBase:
    """The last two steps of one sequence are padding."""
    valid = torch.ones(batch.shape, dtype=torch.bool)
    valid[3, -2:] = False
    return batch.set(("collector", "mask"), valid)


def broken(report: Any) -> list[str]:
    return [finding.rule for finding in report.broken]


def check_actor(actor: Any, batch: TensorDictBase, group: GroupSpec) -> None:
    report = check_policy(actor, batch, group=group.name, raises=False)
    assert broken(report) == [], str(report)
    assert report["for_agent_is_the_slice"].verdict == "passed"


@pytest.mark.parametrize(("kind", "share", "recurrent"), STOCHASTIC)
def test_stochastic_actors(kind: str, share: Any, recurrent: bool) -> None:
    team = two_groups(kind)
    actors: dict[str, Any] = {group.name: make_actor(group, recurrent, share) for group in team}
    batch = experience(team, actors)
    for group in team:
        check_actor(actors[group.name], batch, group)


@either_front
@pytest.mark.parametrize("kind", ["categorical", "one_hot"])
def test_q_actors(kind: str, recurrent: bool) -> None:
    team = two_groups(kind)
    actors: dict[str, Any] = {group.name: make_q_actor(group, recurrent) for group in team}
    batch = experience(team, actors)
    for group in team:
        check_actor(actors[group.name], batch, group)


@either_front
@pytest.mark.parametrize("kind", KINDS)
def test_deterministic_actors(kind: str, recurrent: bool) -> None:
    team, actors = two_groups(kind), {}
    for group in team:
        network = make_network(recurrent)(group.observation_dim, group.action.vector_dim, group.n_agents)
        noise = GaussianNoise(group, 0.3) if kind == "continuous" else None
        actors[group.name] = MultiAgentDeterministicActor(group, own_observation(group), network, noise)
    batch = experience(team, actors)
    for group in team:
        check_actor(actors[group.name], batch, group)


@either_front
@pytest.mark.parametrize("kind", ["continuous", "categorical"])
def test_mappo_loss_and_advantages(kind: str, recurrent: bool) -> None:
    team = two_groups(kind)
    actors: dict[str, Any] = {group.name: make_actor(group, recurrent) for group in team}
    batch = experience(team, actors)
    for group in team:
        critic, norm = value_critic(team, group, make_network(recurrent)), ValueNorm()
        estimator = AdvantageEstimator(critic, group.keys, gamma=0.9, lmbda=0.8, value_norm=norm)
        loss = MAPPOLoss(actors[group.name], critic, keys=group.keys, clip_value=0.2, value_norm=norm)
        report = check_policy_gradient_loss(loss, batch, estimator=estimator, group=group.name)
        skipped = {finding.rule for finding in report.findings if finding.verdict == "skipped"}
        assert skipped == {"padding_changes_nothing", *["dead_agents_change_nothing"] * (group.name == "wolves")}


@pytest.mark.parametrize(
    ("name", "recurrent"), [("none", False), ("vdn", False), ("qmix", False), ("qmix", True), ("qplex", False)]
)
def test_q_mix_loss(name: str, recurrent: bool) -> None:
    team = two_groups("one_hot")
    actors: dict[str, Any] = {group.name: make_q_actor(group, recurrent) for group in team}
    batch = padded(TeamReward(team, "mean")(experience(team, actors)))
    mixer = {"none": None, "vdn": VDNMixer(team), "qmix": QMixer(team, embed_dim=9), "qplex": QPLEXMixer(team)}[name]
    loss = QMixLoss(actors, mixer, gamma=0.9, returns=TDLambdaReturn(0.7) if recurrent else None)
    # QPLEX values the target network's own best action, too.
    options: dict[str, Any] = {"double_q": name != "qplex", "keys": None if mixer is None else {"reward": "reward"}}
    report = check_value_loss(loss, batch, group="sheep", **options)
    assert {finding.verdict for finding in report.findings} == {"passed"}, str(report)


def mixer_data(team: TeamSpec, batch: TensorDictBase) -> TensorDictBase:
    data = batch.reshape(-1)[:6].clone()
    for group in team:
        for key in (group.keys.chosen_action_value, group.keys.max_action_value):
            data.set(key, torch.zeros(6, group.n_agents, 1))
    return data


def test_an_unrestricted_mixer_is_found() -> None:
    team = two_groups("one_hot")
    batch = experience(team, {group.name: make_q_actor(group) for group in team})
    mixer = QMixer(team, monotonic=False)
    report = check_mixer(mixer, mixer_data(team, batch).select(*mixer.in_keys), raises=False)
    assert broken(report) == ["monotonic", "argmax_per_agent"]


@pytest.mark.parametrize(
    ("kind", "others", "recurrent"),
    [("continuous", "replay", False), ("categorical", "replay", True), ("one_hot", "current", False)],
)
def test_maddpg_loss(kind: str, others: Any, recurrent: bool) -> None:
    loss, batch = make_maddpg(kind, "team", recurrent, False, other_actions=others)
    report = check_deterministic_loss(loss, padded(batch), group="sheep", other_actions=others)
    skipped = {finding.rule for finding in report.findings if finding.verdict == "skipped"}
    current, continuous = ["others_actions_are_replayed"], ["discrete_actions_are_hard"]
    remembers = ["stored_action_is_not_in_the_target"]  # a recurrent critic's next value does know what was done
    expected = {*current * (others == "current"), *continuous * (kind == "continuous"), *remembers * recurrent}
    assert skipped == expected, str(report)


def test_states() -> None:
    group = group_spec("sheep", 3, mask=True)
    team = TeamSpec((group,))
    actor = make_actor(group, recurrent=True)
    batch = experience(team, {"sheep": actor})
    check_state(actor, lambda part: part(batch[:, 0].select(*part.in_keys)))
    critic = value_critic(team, group, make_network(True))
    norm = ValueNorm()
    estimator = AdvantageEstimator(critic, group.keys, gamma=0.9, lmbda=0.8, value_norm=norm)
    report = check_state(estimator, lambda part: part(with_hidden(batch.clone(), [])).select(group.keys.value_target))
    assert report["nothing_outside_the_state"].verdict == "passed"
