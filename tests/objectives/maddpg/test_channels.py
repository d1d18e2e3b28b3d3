"""MADDPG through channels: each agent's own action alone is its current one, whatever agents tell each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from ctde_kit.modules import (
    MultiAgentBiCNet,
    MultiAgentCommNet,
    MultiAgentDeterministicActor,
    MultiAgentTarMAC,
    action_value_critic,
    own_observation,
)
from ctde_kit.objectives import MADDPGLoss
from ctde_kit.objectives.maddpg.joint_actions import own_action_values
from ctde_kit.specs import TeamSpec
from tests.contracts.fakes import group_spec, make_network
from tests.objectives.maddpg import formulas
from tests.objectives.maddpg.test_loss import GAMMA, SIZE, TEAMS

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("other_actions", ["replay", "current"])
@pytest.mark.parametrize("kind", ["continuous", "categorical"])
@pytest.mark.parametrize("talks", ["actors", "critics", "both"])
@pytest.mark.parametrize("channel", [MultiAgentBiCNet, MultiAgentCommNet, MultiAgentTarMAC])
def test_through_a_channel_each_agents_own_action_alone_is_swapped(
    channel: Any, talks: str, kind: str, other_actions: Any
) -> None:
    spec = TEAMS["two"](kind)

    def talking(n_in: int, n_out: int, n_agents: int) -> Any:
        return channel(n_in, n_out, n_agents, hidden_size=6, num_cells=(9,))

    plain = make_network(False, False)
    actors, critics = {}, {}
    for group in spec:
        factory = plain if talks == "critics" else talking
        network = factory(group.observation_dim, group.action.vector_dim, group.n_agents)
        actors[group.name] = MultiAgentDeterministicActor(group, own_observation(group), network)
        critic = plain if talks == "actors" else talking
        critics[group.name] = action_value_critic(spec, group, critic, sees="observation")
    loss = MADDPGLoss(actors, critics, gamma=GAMMA, other_actions=other_actions, **formulas.PLAIN)
    for parameter in loss.target_networks.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    batch = formulas.transitions(actors, spec, SIZE)
    torch.manual_seed(1)
    found = loss(batch)
    torch.manual_seed(1)
    policy, value = formulas.losses(loss, actors, critics, batch, gamma=GAMMA, current=other_actions == "current")
    torch.testing.assert_close(found["loss_actor"], policy, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found["loss_value"], value, rtol=1e-9, atol=1e-9)
    for name, expected in (("loss_actor", policy), ("loss_value", value)):
        part = [*actors.values()] if name == "loss_actor" else [*critics.values()]
        parameters = [parameter for module in part for parameter in module.parameters()]
        ours = torch.autograd.grad(found[name], parameters, retain_graph=True)
        for gradient, theirs in zip(ours, torch.autograd.grad(expected, parameters), strict=True):
            torch.testing.assert_close(gradient, theirs, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("channel", [MultiAgentBiCNet, MultiAgentCommNet, MultiAgentTarMAC])
def test_an_agents_loss_through_a_channel_moves_its_own_actor_alone(channel: Any, recurrent: bool) -> None:
    """Row i of the gradient of the agents' values by the actions that are swapped in is zero but for its own."""
    group = group_spec("wolves", 3, "continuous", mask=True)
    critic = action_value_critic(
        TeamSpec((group,)),
        group,
        lambda *sizes: channel(*sizes, hidden_size=6, recurrent=recurrent),
        sees="observation",
    )
    mask = torch.tensor([True, False, True]).expand(SIZE, 3)
    data = TensorDict({"wolves": {"observation": torch.randn(SIZE, 3, 5), "mask": mask}}, [SIZE])
    data["wolves", "action_vector"] = torch.randn(SIZE, 3, 2)
    if recurrent:
        data[critic.hidden_key] = torch.randn(SIZE, 3, 6)
        data["is_init"] = torch.zeros(SIZE, 1, dtype=torch.bool)

    def values(own: Tensor) -> Tensor:
        return own_action_values(critic, group.keys, data, own).sum((0, 2))

    own = torch.randn(SIZE, 3, 2)
    moved = torch.autograd.functional.jacobian(values, own).abs().sum((1, 3))
    assert torch.equal(moved > 0, torch.eye(3).bool() & torch.tensor([True, False, True]))
    # And it depends on what the others did.
    before = values(own)
    data["wolves", "action_vector"] = data["wolves", "action_vector"].flip(0)
    assert ((values(own) - before).abs() > 0).tolist() == [True, False, True]
