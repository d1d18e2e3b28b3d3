"""Channels in every actor, critic and loss that takes a perceptron: sizes, gradients, the dead, refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torchrl.modules import set_recurrent_mode

from ctde_kit.errors import UserError
from ctde_kit.modules import (
    AgentNetwork,
    MultiAgentActor,
    MultiAgentBiCNet,
    MultiAgentCommNet,
    MultiAgentDeterministicActor,
    MultiAgentMLP,
    MultiAgentQActor,
    MultiAgentTarMAC,
    QMixer,
    SubPolicies,
    TeamPolicy,
    action_value_critic,
    own_observation,
    team_observation,
    value_critic,
)
from ctde_kit.objectives import AdvantageEstimator, MADDPGLoss, MAPPOLoss, MinimaxAdversary, QMixLoss, TeamReward
from ctde_kit.specs import GroupSpec, TeamSpec
from tests.contracts.fakes import HIDDEN, LENGTH, N_ENVS, collect, endings, group_spec, observe, with_hidden
from tests.contracts.learning import assert_every_parameter_learns

CHANNELS: dict[str, Any] = {"bicnet": MultiAgentBiCNet, "commnet": MultiAgentCommNet, "tarmac": MultiAgentTarMAC}
every_channel = pytest.mark.parametrize("channel", CHANNELS)
either_front = pytest.mark.parametrize("recurrent", [False, True], ids=["mlp", "gru"])


def network_of(channel: str, recurrent: bool) -> Callable[[int, int, int], nn.Module]:
    options = {"hidden_size": HIDDEN, "num_cells": (9,), "recurrent": recurrent}
    return lambda n_in, n_out, n_agents: CHANNELS[channel](n_in, n_out, n_agents, **options)


def actor_of(kind: Any, group: GroupSpec, make: Callable[[int, int, int], nn.Module]) -> Any:
    inputs = own_observation(group)
    outputs = {MultiAgentActor: group.action.n_parameters}.get(kind, group.action.vector_dim)
    return kind(group, inputs, make(inputs.features, outputs, group.n_agents))


def team_of(kind: str) -> TeamSpec:
    masked = kind != "continuous"
    wolves = group_spec("wolves", 3, kind, action_mask=masked, state_dim=11)
    sheep = group_spec("sheep", 2, kind, action_mask=masked, state_dim=13, observation_dim=8, mask=True)
    return TeamSpec((wolves, sheep), state_dim=10)


def mappo(team: TeamSpec, make: Any, sees: Any = "observation") -> tuple[dict[str, Any], Any]:
    actors = {group.name: actor_of(MultiAgentActor, group, make) for group in team}
    critics = {group.name: value_critic(team, group, make, sees=sees) for group in team}

    def losses(batch: TensorDictBase) -> nn.ModuleDict:
        for group in team:
            AdvantageEstimator(critics[group.name], group.keys, gamma=0.9, lmbda=0.8)(batch)
        return nn.ModuleDict({g.name: MAPPOLoss(actors[g.name], critics[g.name], keys=g.keys) for g in team})

    return actors, losses


def qmix(team: TeamSpec, make: Any, sees: Any = None) -> tuple[dict[str, Any], Any]:
    actors = {group.name: actor_of(MultiAgentQActor, group, make) for group in team}
    return actors, lambda _: nn.ModuleDict({"team": QMixLoss(actors, QMixer(team, embed_dim=9), gamma=0.9)})


def maddpg(team: TeamSpec, make: Any, sees: Any = "observation", **options: Any) -> tuple[dict[str, Any], Any]:
    actors = {group.name: actor_of(MultiAgentDeterministicActor, group, make) for group in team}
    critics = {group.name: action_value_critic(team, group, make, sees=sees) for group in team}
    return actors, lambda _: nn.ModuleDict({"team": MADDPGLoss(actors, critics, gamma=0.9, **options)})


def learned(team: TeamSpec, parts: tuple[dict[str, Any], Any], flat: bool = False) -> tuple[nn.ModuleDict, Any]:
    actors, make_losses = parts
    batch = TeamReward(team, "mean")(collect(team, actors, *endings())[0])
    losses = make_losses(batch)
    return losses, batch.reshape(-1) if flat else batch


def total(losses: nn.ModuleDict, batch: TensorDictBase) -> Tensor:
    torch.manual_seed(1)
    values = [loss(batch) for loss in losses.values()]
    return torch.stack([value for found in values for key, value in found.items() if key.startswith("loss_")]).sum()


@pytest.mark.parametrize("sees", ["observation", "agent_state"])
@every_channel
@either_front
@pytest.mark.parametrize(
    ("recipe", "kind"), [(mappo, "continuous"), (mappo, "categorical"), (qmix, "one_hot"), (maddpg, "categorical")]
)
def test_every_parameter_learns(recipe: Any, kind: str, recurrent: bool, channel: str, sees: str) -> None:
    team = team_of(kind)
    losses, batch = learned(team, recipe(team, network_of(channel, recurrent), sees))
    assert batch["wolves", "action"].shape[:3] == (N_ENVS, LENGTH, 3)
    found = total(losses, batch)
    assert found.isfinite()
    found.backward()
    assert_every_parameter_learns(losses)


@every_channel
@either_front
@pytest.mark.parametrize(("recipe", "kind"), [(mappo, "categorical"), (qmix, "categorical"), (maddpg, "continuous")])
def test_the_dead_change_no_loss_and_no_gradient(recipe: Any, kind: str, recurrent: bool, channel: str) -> None:
    team = team_of(kind)
    losses, batch = learned(team, recipe(team, network_of(channel, recurrent)))
    dead = ~batch["sheep", "mask"]
    # Next to an agent that dies stands what the env left there; what it is worth is cut by its own end.
    batch["next", "sheep", "terminated"] = dead.unsqueeze(-1)
    batch["next", "sheep", "mask"] = batch["sheep", "mask"].clone()
    batch["next", "sheep", "done"] = dead.unsqueeze(-1)
    expected = gradients(losses, batch.clone())
    for part in (batch, batch["next"]):
        part["sheep", "observation"][dead] = torch.nan
    if kind == "continuous":
        batch["sheep", "action"][dead] = 7.0
    for ours, theirs in zip(gradients(losses, batch), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=False)


def gradients(losses: nn.ModuleDict, batch: TensorDictBase) -> list[Tensor]:
    parameters = [parameter for parameter in losses.parameters() if parameter.requires_grad]
    found = total(losses, batch)
    return [found.detach(), *torch.autograd.grad(found, parameters)]


@every_channel
@pytest.mark.parametrize("sequence", [False, True])
@either_front
def test_who_dies_is_silent_afterwards(recurrent: bool, sequence: bool, channel: str) -> None:
    """An actor hears by the mask of its own step: the same observations mean another thing once an agent is dead."""
    group = group_spec("sheep", 3, mask=True)
    network = actor_of(MultiAgentQActor, group, network_of(channel, recurrent)).agent_network
    data = with_hidden(observe(TeamSpec((group,)), N_ENVS, LENGTH), [network])
    data["is_init"] = torch.zeros(N_ENVS, LENGTH, 1, dtype=torch.bool)
    data["sheep", "mask"] = torch.ones(N_ENVS, LENGTH, 3, dtype=torch.bool)

    def values() -> Tensor:
        with set_recurrent_mode(sequence):
            return network(data.clone())["sheep", "action_value"]

    before = values()
    data["sheep", "mask"][:, 2, 1] = False
    after = values()
    changed = (after != before).flatten(3).any(-1).all(0)
    assert changed[2, [0, 2]].all()
    assert not changed[:2].any()
    data["sheep", "observation"][:, 2, 1] += 1
    assert torch.equal(values(), after)
    if recurrent and sequence:
        told = (data["sheep", "observation"], data["sheep", "actor_hidden"][:, 0], data["is_init"])
        torch.testing.assert_close(after, network.network.unroll(*told, mask=data["sheep", "mask"])[0])


@every_channel
@pytest.mark.parametrize("kind", [MultiAgentActor, MultiAgentQActor, MultiAgentDeterministicActor])
def test_a_channel_is_no_decentralized_policy(kind: Any, channel: str) -> None:
    group = group_spec()
    actor = actor_of(kind, group, network_of(channel, False))
    assert not actor.decentralized
    assert not TeamPolicy({"agents": actor}).decentralized
    for refuse in (lambda: actor.for_agent(1), lambda: TeamPolicy({"agents": actor}).for_agent("agents", 1)):
        with pytest.raises(UserError, match=f"{CHANNELS[channel].__name__}.*hears other agents' data") as caught:
            refuse()
        assert "\n" not in str(caught.value)


def test_what_there_is_no_channel_for_is_one_line() -> None:
    group = group_spec()
    team, make = TeamSpec((group,)), network_of("commnet", False)
    inputs = team_observation(team, group, repeat=True)
    for refused, message in (
        (lambda: AgentNetwork(inputs, make(inputs.features, 2, 3), ["out"]), "use each agent's own data"),
        (lambda: value_critic(team, group, make), "agents have nothing to tell each other"),
        (lambda: action_value_critic(team, group, make), "agents have nothing to tell each other"),
        (lambda: SubPolicies([make(5, 2, 3), make(5, 2, 3)]), "give networks without a channel"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            refused()
        assert "\n" not in str(caught.value)


def test_the_minimax_adversary_takes_a_channel() -> None:
    team = team_of("continuous")
    losses, batch = learned(team, maddpg(team, network_of("bicnet", False)))
    loss: Any = losses["team"]
    found = []
    for adversary in (None, MinimaxAdversary(1e-9), MinimaxAdversary(0.1)):
        loss.adversary = adversary
        found.append(loss(batch.clone()))
    plain, hardly, moved = found
    torch.testing.assert_close(hardly, plain)
    assert moved["loss_actor"] > plain["loss_actor"]
    assert moved["loss_value"] != plain["loss_value"]


@either_front
def test_only_a_critic_without_a_channel_swaps_its_own_action(recurrent: bool) -> None:
    team = team_of("continuous")
    critic = action_value_critic(team, team["wolves"], network_of("commnet", recurrent), sees="observation")
    assert not critic.swaps_own_action
    assert action_value_critic(team, team["wolves"], MultiAgentMLP, sees="observation").swaps_own_action
