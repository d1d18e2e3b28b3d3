"""Periodic averages of unshared parameters, alone and in the critics of recipes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ctde_kit.modules import MultiAgentMLP
from ctde_kit.modules.networks.linear import AgentLinear
from ctde_kit.recipes import HardTarget
from ctde_kit.training import ParameterAverage
from tests.recipes.small import averaged, small_config
from tests.recipes.small_maddpg import small_maddpg_config


def parameters_and_moments(network: torch.nn.Module, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """Copies of the parameters and both of Adam's moments."""
    tensors = []
    for parameter in network.parameters():
        state = optimizer.state[parameter]
        tensors += [parameter.detach().clone(), state["exp_avg"].clone(), state["exp_avg_sq"].clone()]
    return tensors


def test_parameters_and_moments_become_their_mean() -> None:
    network = MultiAgentMLP(5, 2, 3, share_params=False, num_cells=(4,))
    optimizer = torch.optim.Adam(network.parameters(), 0.1)
    average = ParameterAverage(network.parameters(), optimizer, every=3)
    for update in range(1, 8):
        optimizer.zero_grad()
        network(torch.randn(7, 3, 5)).square().sum().backward()
        optimizer.step()
        before = parameters_and_moments(network, optimizer)
        average()
        for old, new in zip(before, parameters_and_moments(network, optimizer), strict=True):
            if update % 3:
                assert torch.equal(old, new)
                assert not torch.allclose(new[0], new[1], rtol=0, atol=1e-6)
                continue
            mean = (old[0] + old[1] + old[2]) / 3
            for agent in range(3):
                torch.testing.assert_close(new[agent], mean, rtol=0, atol=1e-6)


def spread(update: Any, of_targets: bool = False) -> float:
    """The largest difference between the agents' critics, or between their target critics."""
    layers = [
        layer
        for name, layer in update.losses.named_modules()
        if isinstance(layer, AgentLinear) and "critic" in name and ("target_networks" in name) is of_targets
    ]
    assert layers
    assert all(len(layer.weight) == 2 for layer in layers)
    return max((part[0] - part[1]).abs().max().item() for layer in layers for part in layer.parameters())


@pytest.mark.parametrize("algorithm", ["mappo", "maddpg"])
def test_critics_are_one_after_a_sync_and_diverge_between(algorithm: str) -> None:
    if algorithm == "mappo":
        parts = small_config(critic=averaged(4)).build()
        batch = parts.prepare(parts.collector.rollout())
        parts.buffer.extend(batch)
        minibatch = next(iter(parts.buffer))
    else:
        parts = small_maddpg_config(critic=averaged(4), target=HardTarget(every=2)).build()
        parts.buffer.extend(parts.prepare(parts.collector.rollout()))
        minibatch = parts.buffer.sample()
    update: Any = parts.update
    for count in range(1, 10):
        update(minibatch)
        assert (spread(update) < 1e-6) is (count % 4 == 0), count
        if algorithm == "maddpg":
            # A target copies after every second update, and after the average where both are due.
            assert (spread(update, of_targets=True) < 1e-6) is (count in (4, 5, 8, 9)), count


def test_the_count_is_its_state() -> None:
    weight = torch.nn.Parameter(torch.tensor([[1.0], [3.0]]))
    optimizer = torch.optim.SGD([weight])
    first, second = (ParameterAverage([weight], optimizer, every=3) for _ in range(2))
    first()
    first()
    second.load_state_dict(first.state_dict())
    second()
    assert weight.tolist() == [[2.0], [2.0]]
