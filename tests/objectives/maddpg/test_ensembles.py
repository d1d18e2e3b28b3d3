"""MADDPG's loss of actors with sub-policies: the paper's mean over them, each from its own transitions."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from tensordict import TensorDictBase
from torch import Tensor

from ctde_kit.errors import UserError
from ctde_kit.modules import (
    MultiAgentDeterministicActor,
    SubPolicies,
    SubPolicyDraw,
    VDNMixer,
    action_value_critic,
    own_observation,
)
from ctde_kit.modules.actors.action_vectors import hard
from ctde_kit.objectives import MADDPGLoss, masked_mean
from ctde_kit.specs import GroupSpec, TeamSpec
from ctde_kit.training import GradientStep
from tests.contracts.fakes import collect, endings, group_spec, make_network
from tests.objectives.maddpg import formulas

GAMMA, SIZE, ROWS = 0.9, 4, 37


def herd(kind: str = "continuous") -> TeamSpec:
    return TeamSpec((group_spec("wolves", 3, kind), group_spec("sheep", 2, kind, observation_dim=8)))


def ensemble(group: GroupSpec, recurrent: bool = False, size: int = SIZE) -> MultiAgentDeterministicActor:
    make = make_network(recurrent, False)
    networks = [make(group.observation_dim, group.action.vector_dim, group.n_agents) for _ in range(size)]
    inputs = own_observation(group, sub_policies=size)
    return MultiAgentDeterministicActor(group, inputs, SubPolicies(networks), sub_policies=SubPolicyDraw(group, size))


def make(team: TeamSpec, **options: Any) -> tuple[MADDPGLoss, dict[str, Any], dict[str, Any]]:
    actors = {group.name: ensemble(group) for group in team}
    critics = {group.name: action_value_critic(team, group, make_network(False)) for group in team}
    loss = MADDPGLoss(actors, critics, gamma=GAMMA, **(formulas.PLAIN | options))
    for parameter in loss.target_networks.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    return loss, actors, critics


def transitions(actors: dict[str, Any], team: TeamSpec, size: int = SIZE) -> TensorDictBase:
    """Random transitions; who followed which sub-policy stands beside, the same before and after."""
    batch = formulas.transitions(actors, team, ROWS)
    for group in team:
        index = torch.randint(size, (ROWS, group.n_agents))
        batch[group.keys.sub_policy] = index
        batch["next", group.name, "sub_policy"] = index.clone()
    return batch


def outputs(networks: Any, batch: TensorDictBase, name: str, index: Tensor) -> Tensor:
    """Each agent's own sub-policy's output, one transition and agent after the other."""
    each = [network(batch[name, "observation"]) for network in networks]
    rows = [torch.stack([each[int(k)][b, i] for i, k in enumerate(row)]) for b, row in enumerate(index)]
    return torch.stack(rows)


@pytest.mark.parametrize("other_actions", ["replay", "current"])
@pytest.mark.parametrize("kind", ["continuous", "categorical"])
def test_losses_are_means_over_sub_policies_of_their_own_transitions(kind: str, other_actions: Any) -> None:
    team = herd(kind)
    loss, actors, critics = make(team, other_actions=other_actions)
    batch = transitions(actors, team)
    torch.manual_seed(1)
    found = loss(batch)
    torch.manual_seed(1)
    done, now, following = formulas.vectors(actors, batch), {}, {}
    for name, actor in actors.items():
        index = batch[name, "sub_policy"]
        here = outputs(actor.agent_network.network.networks, batch, name, index)
        there = outputs(loss.target_networks[f"actor_{name}"].network.networks, batch["next"], name, index)
        if kind == "continuous":
            now[name], following[name] = (formulas.squash(actor, output) for output in (here, there))
        else:
            now[name] = actor.differentiable_vector(batch.copy().set(actor.output_key, here))
            following[name] = hard(actor.group.action, there)
    policies, values = [], []
    for name, critic in critics.items():
        own = []
        for i in range(actors[name].group.n_agents):
            following_value = formulas.value(loss.target_networks[f"critic_{name}"], name, batch["next"], following, i)
            y = batch["next", name, "reward"][:, i, 0] + GAMMA * following_value * ~batch["next", "terminated"][:, 0]
            values.append((formulas.value(critic, name, batch, done, i) - y).square().mean() / 2)
            joint = {group: vector.clone() for group, vector in (now if other_actions == "current" else done).items()}
            joint[name][:, i] = now[name][:, i]
            own.append(formulas.value(critic, name, batch, joint, i))
        value, index = torch.stack(own, -1), batch[name, "sub_policy"]
        policies.append(-torch.stack([value[index == k].mean() for k in range(SIZE)]).mean())
    torch.testing.assert_close(found["loss_actor"], torch.stack(policies).sum())
    torch.testing.assert_close(found["loss_value"], sum(values[:3]) / 3 + sum(values[3:]) / 2)


def gradients(loss: MADDPGLoss, actor: Any, batch: TensorDictBase) -> list[list[Tensor]]:
    """Of the actor loss, by sub-policy."""
    networks = actor.agent_network.network.networks
    weights = [[*network.parameters()] for network in networks]
    found = torch.autograd.grad(loss(batch)["loss_actor"], [p for each in weights for p in each])
    count = len(weights[0])
    return [list(found[k * count : (k + 1) * count]) for k in range(len(networks))]


@pytest.mark.parametrize("regularization", [0.0, 0.3])
def test_a_sub_policys_gradient_comes_from_its_own_transitions_alone(regularization: float) -> None:
    team = herd()
    loss, actors, _ = make(team, action_regularization=regularization)
    batch = transitions(actors, team)
    before = gradients(loss, actors["wolves"], batch)
    index = batch["wolves", "sub_policy"]
    for agent in range(3):
        for k in range(SIZE):
            # Whatever happened where this agent followed another.
            others, changed = index[:, agent] != k, batch.clone()
            assert others.any()
            assert not others.all()
            for key in (("wolves", "observation"), ("sheep", "observation"), ("wolves", "action")):
                changed[key][others] = torch.randn_like(changed[key][others])
            after = gradients(loss, actors["wolves"], changed)
            for then, now in zip(before[k], after[k], strict=True):
                assert then[agent].any()
                torch.testing.assert_close(then[agent], now[agent], rtol=1e-4, atol=1e-6)
            assert any(
                not torch.allclose(then[agent], now[agent])
                for j in range(SIZE)
                if j != k
                for then, now in zip(before[j], after[j], strict=True)
            )


def test_regularization_is_a_mean_over_sub_policies_too() -> None:
    team = herd()
    loss, actors, _ = make(team)
    batch = transitions(actors, team)
    plain = loss(batch.clone())["loss_actor"]
    loss.action_regularization = 0.3
    expected = plain
    for name, actor in actors.items():
        index = batch[name, "sub_policy"]
        square = outputs(actor.agent_network.network.networks, batch, name, index).square().mean(-1)
        expected = expected + 0.3 * torch.stack([square[index == k].mean() for k in range(SIZE)]).mean()
    torch.testing.assert_close(loss(batch)["loss_actor"], expected)


def test_a_sub_policy_that_did_not_act_is_left_alone() -> None:
    team = herd()
    loss, actors, _ = make(team)
    batch = transitions(actors, team)
    for part in (batch, batch["next"]):
        part["wolves", "sub_policy"].masked_fill_(part["wolves", "sub_policy"] == 2, 3)
    found = gradients(loss, actors["wolves"], batch)
    assert [any(bool(g.any()) for g in each) for each in found] == [True, True, False, True]


def test_targets_are_of_the_target_networks_sub_policies() -> None:
    team = herd()
    loss, actors, _ = make(team)
    batch = transitions(actors, team)
    before = loss(batch.clone())["target_value"]
    for k in range(SIZE):
        for of_targets, depends in ((False, False), (True, True)):
            owner = loss.target_networks["actor_wolves"] if of_targets else actors["wolves"].agent_network
            bias = owner.network.networks[k].layers[-1].bias
            with torch.no_grad():
                bias.add_(0.5)
                assert torch.equal(loss(batch.clone())["target_value"], before) is not depends
                bias.sub_(0.5)
        others = batch.clone()
        for name in ("wolves", "sheep"):
            others["next", name, "sub_policy"].fill_(k)
        assert not torch.equal(loss(others)["target_value"], before)


def test_one_sub_policy_is_maddpg_bit_for_bit() -> None:
    team = herd()
    actors: dict[str, Any] = {group.name: ensemble(group, size=1) for group in team}
    plain: dict[str, Any] = {
        group.name: MultiAgentDeterministicActor(
            group, own_observation(group), actors[group.name].agent_network.network.networks[0]
        )
        for group in team
    }
    critics = {group.name: action_value_critic(team, group, make_network(False)) for group in team}
    batch = transitions(actors, team, 1)
    found = []
    for each in (actors, plain):
        loss = MADDPGLoss(each, critics, gamma=GAMMA, action_regularization=0.1)
        losses = loss(batch.clone())
        total = losses["loss_actor"] + losses["loss_value"]
        learned = [p for part in (loss.actors, loss.critics) for p in part.parameters()]
        found.append([losses["loss_actor"], losses["loss_value"], *torch.autograd.grad(total, learned)])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("recurrent", [False, True])
def test_sequences_in_which_the_sub_policy_changes(recurrent: bool) -> None:
    """An index changes where an episode starts; each step's loss is that of the sub-policy that acted there."""
    team = TeamSpec((group_spec("wolves", 3, "continuous"),))
    group = team["wolves"]
    actor = ensemble(group, recurrent)
    critic = action_value_critic(team, group, make_network(recurrent, False), heads="network")
    _, next_root = collect(team, {"wolves": Carried(actor)}, *endings())
    batch, _ = collect(team, {"wolves": Carried(actor)}, *endings(), next_root)
    index = batch["wolves", "sub_policy"]
    assert (index[:, 0] != index[:, -1]).any()
    loss = MADDPGLoss({"wolves": actor}, {"wolves": critic}, gamma=GAMMA, **formulas.PLAIN)
    kept = batch.select(*loss.stored_keys, strict=False)
    assert ("next", "wolves", "sub_policy") in kept.keys(True)
    seen: list[Tensor] = []
    values = critic.own_action_values
    critic.own_action_values = lambda *a: seen.append(values(*a)) or seen[-1]
    found = loss(kept)["loss_actor"]
    expected = torch.stack([masked_mean(seen[0], index.unsqueeze(-1) == k) for k in range(SIZE)]).mean()
    torch.testing.assert_close(found, -expected)


class Carried(torch.nn.Module):
    """An actor for ``collect``, which carries no index from step to step: the env does, by its primer."""

    def __init__(self, actor: MultiAgentDeterministicActor):
        super().__init__()
        self.actor, self.agent_network = actor, actor.agent_network
        self.index: Tensor | None = None

    def forward(self, step: TensorDictBase) -> TensorDictBase:
        key = self.actor.group.keys.sub_policy
        zeros = torch.zeros(*step.shape, self.actor.group.n_agents, dtype=torch.long)
        step = self.actor(step.set(key, zeros if self.index is None else self.index))
        self.index = step[key]
        return step


def test_a_mixer_is_refused() -> None:
    team = TeamSpec((group_spec("wolves", 3, "continuous"),))
    actor = ensemble(team["wolves"])
    critic = action_value_critic(team, team["wolves"], make_network(False), sees="observation")
    with pytest.raises(UserError, match="without sub_policies, or mixer=None") as caught:
        MADDPGLoss({"wolves": actor}, {"wolves": critic}, VDNMixer(team), gamma=GAMMA)
    assert "\n" not in str(caught.value)


def test_a_missing_index_is_named() -> None:
    team = herd()
    loss, actors, _ = make(team)
    for key in (("wolves", "sub_policy"), ("next", "sheep", "sub_policy")):
        assert key in loss.in_keys
        with pytest.raises(UserError, match=re.escape(f"key {key!r} is missing")):
            loss(transitions(actors, team).exclude(key))


@pytest.mark.slow
def test_the_gradient_step_is_one_graph() -> None:
    team = herd()
    loss, actors, _ = make(team)
    minibatch = transitions(actors, team)
    learned = [p for p in loss.parameters() if p.requires_grad]
    step = GradientStep({"team": loss}, torch.optim.SGD(learned, lr=0.0), 1.0, compile=True)
    step(minibatch.clone())
    assert step.compile
    minibatch = transitions(actors, team)
    metrics, found = next(iter(step._compiled.values())).compiled(minibatch.clone())
    plain_metrics, expected = step.gradients(minibatch.clone())
    for name, value in plain_metrics.items():
        torch.testing.assert_close(metrics[name], value, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
