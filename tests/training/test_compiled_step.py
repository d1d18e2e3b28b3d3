"""Whole gradient steps as one graph: parameters, moments and metrics as the plain step gives them, step after step."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn

from ctde_kit.training import GradientStep

OPTIMIZERS: dict[str, Any] = {
    "Adam": lambda groups: torch.optim.Adam(groups, lr=0.02, eps=1e-5, fused=True),
    "AdamW": lambda groups: torch.optim.AdamW(groups, lr=0.02, weight_decay=0.1),
    "RAdam": lambda groups: torch.optim.RAdam(groups, lr=0.02),
    "SGD": lambda groups: torch.optim.SGD(groups, lr=0.02, momentum=0.5),
}


class Squared(nn.Module):
    """A loss of a network with a parameter that it does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        self.spare = nn.Linear(1, 1)

    def forward(self, minibatch: TensorDictBase) -> dict[str, Tensor]:
        return {"loss_x": (self.network(minibatch["x"]) - minibatch["y"]).square().mean()}


def make(name: str, compile: bool) -> GradientStep:
    torch.manual_seed(0)
    loss = Squared()
    first, *others = loss.parameters()
    groups = [{"params": [first]}, {"params": others, "lr": 0.003}]
    return GradientStep({"team": loss}, OPTIMIZERS[name](groups), max_grad_norm=0.5, compile=compile)


def minibatches(count: int, seed: int = 1) -> list[TensorDict]:
    random = torch.Generator().manual_seed(seed)
    return [
        TensorDict({"x": torch.randn(5, 3, generator=random), "y": 3 * torch.randn(5, 2, generator=random)}, [5])
        for _ in range(count)
    ]


def everything(step: GradientStep) -> dict[str, Tensor]:
    """Parameters and the optimizer's tensors."""
    found = {name: value.detach().clone() for name, value in step.losses.state_dict().items()}
    for index, state in step.optimizer.state_dict()["state"].items():
        found |= {f"{index} {name}": value.clone() for name, value in state.items() if isinstance(value, Tensor)}
    return found


def assert_alike(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=2e-5, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_the_plain_ones_while_learning_rates_change(name: str) -> None:
    compiled, plain = make(name, True), make(name, False)
    for index, minibatch in enumerate(minibatches(8)):
        for step in (compiled, plain):
            for group in step.optimizer.param_groups:
                group["lr"] *= 0.5 if index == 4 else 1.0
        before = everything(plain)
        metrics, expected = compiled(minibatch.clone()), plain(minibatch.clone())
        assert_alike(dict(metrics), dict(expected))
        assert_alike(everything(compiled), everything(plain))
        moved = [key for key, value in everything(plain).items() if not torch.equal(value, before.get(key, value))]
        assert "team.network.0.weight" in moved
        assert not any("spare" in key for key in moved)
    (found,) = compiled._compiled.values()
    assert found.is_whole == (name != "SGD")


def test_compiling_changes_nothing() -> None:
    step = make("Adam", True)
    example, *others = minibatches(3)
    step._plain(example)
    before = everything(step)
    step._compile(others[0])
    assert step._compiled
    assert all(torch.equal(value, before[name]) for name, value in everything(step).items())
    assert all(parameter.grad is None for parameter in step.parameters)
    assert [group["lr"] for group in step.optimizer.param_groups] == [0.02, 0.003]
    assert step.optimizer.param_groups[0]["fused"] is True


@pytest.mark.parametrize("change", ["state", "options"])
def test_a_loaded_state_and_other_options_take_effect(change: str) -> None:
    compiled, plain = make("Adam", True), make("Adam", False)
    for minibatch in minibatches(3):
        compiled(minibatch.clone())
        plain(minibatch.clone())
    saved = copy.deepcopy(compiled.state_dict())
    for minibatch in minibatches(3, seed=2):
        compiled(minibatch.clone())
        plain(minibatch.clone())
    for step in (compiled, plain):
        if change == "state":
            step.load_state_dict(copy.deepcopy(saved))
        else:
            step.optimizer.param_groups[1]["betas"] = (0.5, 0.9)
    for minibatch in minibatches(3, seed=3):
        compiled(minibatch.clone())
        plain(minibatch.clone())
        assert_alike(everything(compiled), everything(plain))
