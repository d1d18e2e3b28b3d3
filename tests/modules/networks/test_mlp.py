"""Perceptrons over the agent axis."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from ctde_kit.modules import MultiAgentMLP
from tests.contracts.fakes import SHARINGS, sharing


def test_it_is_linear_layers_with_activations_between() -> None:
    network = MultiAgentMLP(5, 2, n_agents=3, num_cells=(6, 7), activation_class=nn.ReLU)
    reference = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 2))
    with torch.no_grad():
        for ours, theirs in zip(network.parameters(), reference.parameters(), strict=True):
            theirs.copy_(ours[0])
    x = torch.randn(4, 3, 5)
    torch.testing.assert_close(network(x), reference(x))


def test_without_hidden_layers_it_is_linear() -> None:
    network = MultiAgentMLP(5, 2, n_agents=3, num_cells=())
    assert [tuple(layer.weight.shape) for layer in network.layers] == [(1, 2, 5)]


def test_out_gain_scales_the_last_layer_alone() -> None:
    network = MultiAgentMLP(6, 3, n_agents=2, num_cells=(6,), out_gain=0.01)
    first, last = network.layers
    torch.testing.assert_close(first.weight[0] @ first.weight[0].T, 2 * torch.eye(6))
    torch.testing.assert_close(last.weight[0] @ last.weight[0].T, 1e-4 * torch.eye(3))


@pytest.mark.parametrize(("share", "moved"), [(True, [True]), (False, [False, True, False]), ("mapped", [False, True])])
def test_gradients_stay_in_an_agents_own_set(share: Any, moved: list[bool]) -> None:
    network = MultiAgentMLP(5, 2, n_agents=3, share_params=sharing(share, 3), num_cells=(6,))
    network(torch.randn(7, 3, 5))[:, 1].square().sum().backward()
    for parameter in network.parameters():
        assert parameter.grad is not None
        assert parameter.grad.flatten(1).any(1).tolist() == moved


@pytest.mark.parametrize("share", SHARINGS)
def test_for_agent_is_a_slice(share: Any) -> None:
    network = MultiAgentMLP(5, 2, n_agents=3, share_params=sharing(share, 3), num_cells=(6,))
    x = torch.randn(7, 3, 5)
    for agent in range(3):
        torch.testing.assert_close(network.for_agent(agent)(x[:, agent : agent + 1]), network(x)[:, agent : agent + 1])


@pytest.mark.parametrize("share", [True, False])
def test_layer_norm_makes_the_scale_of_hidden_layers_irrelevant(share: bool) -> None:
    x = torch.randn(4, 3, 5)
    for layer_norm in (True, False):
        network = MultiAgentMLP(5, 2, 3, share_params=share, num_cells=(9, 7), layer_norm=layer_norm)
        before = network(x)
        torch.testing.assert_close(network.for_agent(1)(x[:, 1:2]), before[:, 1:2])
        with torch.no_grad():
            network.layers[0].weight.mul_(10)
            network.layers[0].bias.mul_(10)
        assert torch.allclose(network(x), before, atol=1e-3) == layer_norm
