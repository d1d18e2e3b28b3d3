"""Linear layers over the agent axis."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ctde_kit.errors import UserError
from ctde_kit.modules.networks.linear import AgentLinear

SETS = {"shared": (True, (0, 0, 0)), "unshared": (False, (0, 1, 2)), "mapped": ([1, 0, 0], (1, 0, 0))}


@pytest.mark.parametrize(("share_params", "sets"), SETS.values(), ids=SETS)
def test_each_agent_uses_its_own_parameter_set(share_params: Any, sets: tuple[int, ...]) -> None:
    layer = AgentLinear(5, 2, n_agents=3, share_params=share_params)
    x = torch.randn(7, 4, 3, 5)
    out = layer(x)
    assert out.shape == (7, 4, 3, 2)
    assert len(layer.weight) == max(sets) + 1
    for agent, index in enumerate(sets):
        torch.testing.assert_close(out[..., agent, :], x[..., agent, :] @ layer.weight[index].T + layer.bias[index])


def test_an_agents_loss_moves_only_its_own_set() -> None:
    layer = AgentLinear(5, 2, n_agents=3, share_params=False)
    layer(torch.randn(7, 3, 5))[:, 1].sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.flatten(1).any(1).tolist() == [False, True, False]


@pytest.mark.parametrize("share_params", [False, [0, 1, 0]])
def test_another_number_of_agents_is_an_error(share_params: Any) -> None:
    with pytest.raises(RuntimeError, match=r"\(1\) must match the existing size \(3\)"):
        AgentLinear(5, 2, n_agents=3, share_params=share_params)(torch.randn(7, 1, 5))


@pytest.mark.parametrize("share_params", [[0, 1], [0, 2, 0], [1, 1, 2]])
def test_a_mapping_with_gaps_or_of_another_length_is_an_error(share_params: list[int]) -> None:
    with pytest.raises(UserError, match="share_params"):
        AgentLinear(5, 2, n_agents=3, share_params=share_params)


def test_default_initialization_is_pytorchs() -> None:
    layer = AgentLinear(400, 300, n_agents=2, share_params=False)
    reference = torch.nn.Linear(400, 300)
    for ours, theirs in ((layer.weight, reference.weight), (layer.bias, reference.bias)):
        assert ours.abs().max() <= 1 / 20
        torch.testing.assert_close(ours.std(), theirs.std(), rtol=0.1, atol=0)
    assert not torch.equal(layer.weight[0], layer.weight[1])


def test_orthogonal_initialization_is_orthogonal_in_every_set() -> None:
    layer = AgentLinear(8, 4, n_agents=3, share_params=False)
    layer.reset_parameters(gain=0.5)
    for weight in layer.weight:
        torch.testing.assert_close(weight @ weight.T, 0.25 * torch.eye(4))
    assert not layer.bias.any()


@pytest.mark.parametrize(("share_params", "sets"), SETS.values(), ids=SETS)
def test_for_agent_is_a_slice_on_the_same_storage(share_params: Any, sets: tuple[int, ...]) -> None:
    layer = AgentLinear(5, 2, n_agents=3, share_params=share_params)
    singles = [layer.for_agent(agent) for agent in range(3)]
    with torch.no_grad():
        layer.weight.mul_(2)
        layer.bias.add_(1)
    x = torch.randn(7, 3, 5)
    for agent, single in enumerate(singles):
        torch.testing.assert_close(single(x[:, agent : agent + 1]), layer(x)[:, agent : agent + 1])


def test_for_agent_draws_no_random_number() -> None:
    layer = AgentLinear(5, 2, n_agents=3)
    before = torch.get_rng_state()
    layer.for_agent(1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("agents", [slice(0, 0), slice(0, 1), slice(1, 3), slice(0, 3)])
@pytest.mark.parametrize("share_params", [True, False, [0, 1, 0]])
def test_agents_that_are_left_out_are_zero_and_learn_nothing(share_params: Any, agents: slice) -> None:
    layer, x = AgentLinear(5, 2, n_agents=3, share_params=share_params), torch.randn(4, 7, 3, 5, requires_grad=True)
    is_own = torch.zeros(3, 1, dtype=torch.bool)
    is_own[agents] = True
    expected = torch.where(is_own, layer(x), 0)
    wanted = torch.autograd.grad(expected.square().sum(), [x, layer.weight, layer.bias])
    layer.agents = agents
    torch.testing.assert_close(layer(x), expected)
    for found, gradient in zip(
        torch.autograd.grad(layer(x).square().sum(), [x, layer.weight, layer.bias]), wanted, strict=True
    ):
        torch.testing.assert_close(found, gradient)
