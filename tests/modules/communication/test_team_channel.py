"""A channel that crosses groups of different observation sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict import TensorDictBase
from torch import Tensor

from ctde_kit.errors import UserError
from ctde_kit.keys import next_key
from ctde_kit.modules import (
    BidirectionalRNN,
    MeanMessages,
    MultiAgentActor,
    MultiAgentDeterministicActor,
    MultiAgentMLP,
    MultiAgentQActor,
    QMixer,
    TargetedMessages,
    TeamChannel,
    TeamPolicy,
    action_value_critic,
    own_observation,
    value_critic,
)
from ctde_kit.modules.networks.team_input import TeamInput
from ctde_kit.objectives import AdvantageEstimator, MADDPGLoss, MAPPOLoss, QMixLoss, TeamReward
from ctde_kit.specs import TeamSpec
from tests.contracts.fakes import HIDDEN, LENGTH, N_ENVS, collect, endings, group_spec, observe

B, H, G = 4, 6, 3
TEAM = TeamSpec((group_spec("wolves", 3), group_spec("sheep", 2, observation_dim=8, mask=True)))
CHANNELS: dict[str, Any] = {
    "bicnet": lambda size: BidirectionalRNN(size, size // 2),
    "commnet": MeanMessages,
    "tarmac": TargetedMessages,
}
either_front = pytest.mark.parametrize("recurrent", [False, True], ids=["mlp", "gru"])


def make(name: str = "commnet", recurrent: bool = False, outputs: Any = None, hidden: int = H) -> Any:
    inputs = {group.name: own_observation(group) for group in TEAM}
    outputs = outputs or {"wolves": G, "sheep": G + 1}
    channel = TeamChannel(inputs, outputs, CHANNELS[name](hidden), hidden_size=hidden, recurrent=recurrent)
    return TeamInput(inputs), channel


def actors_of(kind: Any, recurrent: bool = False) -> dict[str, Any]:
    inputs, channel = make("commnet", recurrent, {"wolves": 6, "sheep": 6}, HIDDEN)
    return {group.name: kind(group, inputs, channel.for_group(group.name)) for group in TEAM}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", CHANNELS)
def test_it_is_encoders_a_channel_and_heads(name: str) -> None:
    inputs, channel = make(name)
    data = observe(TEAM, B)
    data["sheep", "mask"] = torch.tensor([True, False]).expand(B, 2)
    encoded = []
    for group in TEAM:
        encoder = channel.encoders[group.name]
        encoded.append(encoder.activation(encoder.network(data[group.name, "observation"])))
    # The second of the sheep is dead: four agents talk.
    heard = channel.channel(torch.cat(encoded, 1)[:, :4])
    wolves = channel.heads["wolves"](torch.cat([heard[:, :3], data["wolves", "observation"]], -1))
    sheep = channel.heads["sheep"](torch.cat([heard[:, 3:], data["sheep", "observation"][:, :1]], -1))
    x, mask = inputs(data), inputs.alive(data)
    assert x.shape == (B, 5, 8)
    torch.testing.assert_close(channel.for_group("wolves")(x, mask=mask), wolves)
    torch.testing.assert_close(channel.for_group("sheep")(x, mask=mask)[:, :1], sheep)
    data["sheep", "observation"][:, 1] = torch.nan
    torch.testing.assert_close(channel.for_group("wolves")(inputs(data), mask=mask), wolves)


@pytest.mark.parametrize("name", CHANNELS)
def test_every_agent_hears_agents_of_other_groups(name: str) -> None:
    _, channel = make(name)
    x = torch.randn(2, 5, 8)
    for group, size in (("wolves", 3), ("sheep", 2)):
        moved = torch.autograd.functional.jacobian(channel.for_group(group), x).abs().sum((2, 5)) > 0
        assert torch.equal(moved, torch.eye(2).bool().reshape(2, 1, 2, 1).expand(2, size, 2, 5))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", CHANNELS)
def test_single_steps_equal_the_sequence(name: str) -> None:
    _, channel = make(name, recurrent=True)
    network, steps = channel.for_group("sheep"), 7
    x, hidden, mask = torch.randn(B, steps, 5, 8), torch.randn(B, 5, H), torch.rand(B, steps, 5) < 0.7
    is_init = torch.zeros(B, steps, 1, dtype=torch.bool)
    is_init[0, 3] = is_init[2, 5] = True
    unrolled = network.unroll(x, hidden, is_init, mask=mask)
    assert [part.shape[2:] for part in unrolled] == [(2, G + 1), (5, H), (5, H)]
    for t in range(steps):
        outputs, after, before = network(x[:, t], hidden, is_init[:, t], mask=mask[:, t])
        for stepped, part in zip((outputs, after, before), unrolled, strict=True):
            torch.testing.assert_close(stepped, part[:, t])
        hidden = after


def mappo(actors: dict[str, Any], batch: TensorDictBase) -> list[Tensor]:
    found = []
    for group in TEAM:
        critic = value_critic(TEAM, group, MultiAgentMLP)
        AdvantageEstimator(critic, group.keys, gamma=0.9, lmbda=0.8)(batch)
        found.append(MAPPOLoss(actors[group.name], critic, keys=group.keys)(batch)["loss_objective"])
    return found


def qmix(actors: dict[str, Any], batch: TensorDictBase) -> list[Tensor]:
    return [QMixLoss(actors, QMixer(TEAM, embed_dim=9), gamma=0.9)(TeamReward(TEAM, "mean")(batch))["loss_qvalue"]]


def maddpg(actors: dict[str, Any], batch: TensorDictBase) -> list[Tensor]:
    critics = {group.name: action_value_critic(TEAM, group, MultiAgentMLP) for group in TEAM}
    return [MADDPGLoss(actors, critics, gamma=0.9)(batch)["loss_actor"]]


@either_front
@pytest.mark.parametrize(
    ("kind", "losses"), [(MultiAgentActor, mappo), (MultiAgentQActor, qmix), (MultiAgentDeterministicActor, maddpg)]
)
def test_each_groups_loss_teaches_all_encoders(kind: Any, losses: Any, recurrent: bool) -> None:
    actors = actors_of(kind, recurrent)
    batch, _ = collect(TEAM, actors, *endings())
    channel = actors["wolves"].agent_network.network.team
    assert channel is actors["sheep"].agent_network.network.team
    if recurrent:
        assert batch["wolves_actor_hidden"].shape == (N_ENVS, LENGTH, 5, HIDDEN)
        assert batch.get(next_key("sheep_actor_hidden")).shape == (N_ENVS, LENGTH, 5, HIDDEN)
    for loss in losses(actors, batch):
        parameters = [p for encoder in channel.encoders.values() for p in encoder.parameters()]
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
        assert all(gradient.isfinite().all() and gradient.any() for gradient in gradients)


def test_no_agent_acts_alone() -> None:
    policy = TeamPolicy(actors_of(MultiAgentQActor))
    assert not policy.decentralized
    with pytest.raises(UserError, match="other agents' data"):
        policy.for_agent("sheep", 1)


def test_mistakes_are_one_line() -> None:
    _, channel = make()
    with pytest.raises(UserError, match="no group 'goats': this channel has"):
        channel.for_group("goats")
    with pytest.raises(UserError, match="expected the groups"):
        make(outputs={"wolves": 2})


def test_out_gain_scales_the_heads_alone() -> None:
    inputs = {group.name: own_observation(group) for group in TEAM}
    channel = TeamChannel(inputs, dict.fromkeys(inputs, G), MeanMessages(H), hidden_size=H, out_gain=0.01)
    for name, head in channel.heads.items():
        weight = head.weight[0]
        torch.testing.assert_close(weight @ weight.T, 1e-4 * torch.eye(G))
        assert channel.encoders[name].network.layers[-1].weight.norm() > 1
