"""Whole gradient steps as one graph: parameters, moments and metrics equal those of the eager step, step after step."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn

from ctde_kit.errors import UserError
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
    tensors = {name: value.detach().clone() for name, value in step.losses.state_dict().items()}
    for index, state in step.optimizer.state_dict()["state"].items():
        tensors |= {f"{index} {name}": value.clone() for name, value in state.items() if isinstance(value, Tensor)}
    return tensors


def assert_alike(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(actual) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=2e-5, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_the_eager_ones_while_learning_rates_change(name: str, graphs: None) -> None:
    assert_steps_are_the_eager_ones(name)


def test_compiled_steps_are_the_eager_ones() -> None:
    assert_steps_are_the_eager_ones("Adam")


def assert_steps_are_the_eager_ones(name: str) -> None:
    compiled, eager = make(name, True), make(name, False)
    for index, minibatch in enumerate(minibatches(8)):
        for step in (compiled, eager):
            for group in step.optimizer.param_groups:
                group["lr"] *= 0.5 if index == 4 else 1.0
        before = everything(eager)
        metrics, expected = compiled(minibatch.clone()), eager(minibatch.clone())
        assert_alike(dict(metrics), dict(expected))
        assert_alike(everything(compiled), everything(eager))
        moved = [key for key, value in everything(eager).items() if not torch.equal(value, before.get(key, value))]
        assert "team.network.0.weight" in moved
        assert not any("spare" in key for key in moved)
    (compiled_step,) = compiled._compiled.values()
    assert compiled_step.is_whole == (name != "SGD")


class Scaled(nn.Module):
    """A loss of a network of its own behind one that other losses use, too."""

    def __init__(self, shared: nn.Module, scale: float) -> None:
        super().__init__()
        self.network, self.scale = nn.Sequential(shared, nn.Linear(4, 2)), scale

    def forward(self, minibatch: TensorDictBase) -> dict[str, Tensor]:
        return {"loss_x": self.scale * (self.network(minibatch["x"]) - minibatch["y"]).square().mean()}


def make_sharing(max_grad_norm: float, *, reverse: bool = False, compile: bool = False) -> GradientStep:
    """Two groups whose networks begin with the same layer."""
    torch.manual_seed(0)
    shared = nn.Linear(3, 4)
    losses = {"wolves": Scaled(shared, 30.0), "sheep": Scaled(shared, 4.0)}
    parameters = nn.ModuleDict(losses).parameters()
    if reverse:
        losses = dict(reversed(losses.items()))
    return GradientStep(losses, torch.optim.Adam(parameters, lr=0.02), max_grad_norm, compile=compile)


@pytest.mark.parametrize("reverse", [False, True])
def test_the_norm_of_each_group_is_that_before_a_shared_parameter_is_clipped(reverse: bool) -> None:
    (minibatch,) = minibatches(1)
    expected = make_sharing(1e9).gradients(minibatch)[0]
    step = make_sharing(0.5, reverse=reverse)
    metrics, clipped = step.gradients(minibatch)
    norms = {group: metrics[f"{group}/grad_norm"] for group in ("wolves", "sheep")}
    for group, norm in norms.items():
        torch.testing.assert_close(norm, expected[f"{group}/grad_norm"])
        assert norm > 1

    found = dict(zip(step.parameters, clipped, strict=True))
    plain = make_sharing(1e9, reverse=reverse)
    whole = dict(zip(step.parameters, plain.gradients(minibatch)[1], strict=True))
    factors = {group: 0.5 / norm for group, norm in norms.items()}
    for group, factor in factors.items():
        first, last = step.losses[group].network
        for parameter in last.parameters():
            torch.testing.assert_close(found[parameter], whole[parameter] * factor)
        for parameter in first.parameters():
            torch.testing.assert_close(found[parameter], whole[parameter] * min(factors.values()))
        total = torch.stack([found[p].norm() for p in step.losses[group].parameters()]).norm()
        assert total <= 0.5 * (1 + 1e-5)


def test_compiled_steps_clip_shared_parameters_as_eager_ones(graphs: None) -> None:
    compiled, eager = make_sharing(0.5, compile=True), make_sharing(0.5)
    for minibatch in minibatches(4):
        metrics, expected = compiled(minibatch.clone()), eager(minibatch.clone())
        assert_alike(dict(metrics), dict(expected))
        assert_alike(everything(compiled), everything(eager))
    assert compiled.compile


def test_compiling_changes_nothing() -> None:
    step = make("Adam", True)
    example, *others = minibatches(3)
    step._eager(example)
    before = everything(step)
    step._compile(others[0])
    assert step._compiled
    assert all(torch.equal(value, before[name]) for name, value in everything(step).items())
    assert all(parameter.grad is None for parameter in step.parameters)
    assert [group["lr"] for group in step.optimizer.param_groups] == [0.02, 0.003]
    assert step.optimizer.param_groups[0]["fused"] is True


@pytest.mark.parametrize("change", ["state", "options"])
def test_a_loaded_state_and_other_options_take_effect(change: str, graphs: None) -> None:
    compiled, eager = make("Adam", True), make("Adam", False)
    for minibatch in minibatches(3):
        compiled(minibatch.clone())
        eager(minibatch.clone())
    saved = copy.deepcopy(compiled.state_dict())
    for minibatch in minibatches(3, seed=2):
        compiled(minibatch.clone())
        eager(minibatch.clone())
    for step in (compiled, eager):
        if change == "state":
            step.load_state_dict(copy.deepcopy(saved))
        else:
            step.optimizer.param_groups[1]["betas"] = (0.5, 0.9)
    for minibatch in minibatches(3, seed=3):
        compiled(minibatch.clone())
        eager(minibatch.clone())
        assert_alike(everything(compiled), everything(eager))


class Counting(torch.optim.Adam):
    """Adam with a count of its own in Python."""

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            group["calls"] = group.get("calls", 0) + 1
        super().step(closure)


def run_both(
    make_optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer], change: Callable[[GradientStep], None]
) -> tuple[GradientStep, GradientStep]:
    """A compiled and a eager step after three minibatches, ``change`` and three more, where one feature is always 0."""
    steps = []
    for compile in (True, False):
        torch.manual_seed(0)
        loss = Squared()
        step = GradientStep({"team": loss}, make_optimizer([{"params": list(loss.parameters())}]), 0.5, compile=compile)
        for index, minibatch in enumerate(minibatches(6)):
            if index == 3:
                change(step)
            minibatch["x"][:, 0] = 0.0
            step(minibatch)
        steps.append(step)
    assert_alike(everything(steps[0]), everything(steps[1]))
    return steps[0], steps[1]


def is_whole(step: GradientStep) -> list[bool]:
    return [compiled.is_whole for compiled in step._compiled.values()]


@pytest.mark.parametrize("name", ["Adam", "AdamW", "RAdam"])
def test_a_learning_rate_of_0_moves_nothing(name: str, graphs: None) -> None:
    def stop(step: GradientStep) -> None:
        for group in step.optimizer.param_groups:
            group["lr"] = 0.0

    compiled, _ = run_both(OPTIMIZERS[name], stop)
    assert is_whole(compiled) == [True]


def test_an_optimizer_that_counts_in_python_runs_behind_the_graph(
    caplog: pytest.LogCaptureFixture, graphs: None
) -> None:
    with caplog.at_level(logging.WARNING, logger="ctde_kit"):
        compiled, eager = run_both(lambda groups: Counting(groups, lr=0.02), lambda step: None)
    assert is_whole(compiled) == [False]
    assert compiled.optimizer.param_groups[0]["calls"] == eager.optimizer.param_groups[0]["calls"] == 6
    messages = [record.getMessage() for record in caplog.records if record.name == "ctde_kit"]
    assert messages == ["the optimizer's step is not compiled: the optimizer counts in Python"]


def test_hooks_that_come_later_are_called(graphs: None) -> None:
    calls: dict[bool, int] = {True: 0, False: 0}

    def hook(step: GradientStep) -> None:
        def count(*_: Any) -> None:
            calls[step.compile] += 1

        step.optimizer.register_step_post_hook(count)

    compiled, _ = run_both(OPTIMIZERS["Adam"], hook)
    assert is_whole(compiled) == [False]
    assert calls[True] == calls[False] == 3


@pytest.mark.parametrize("what", ["storage", pytest.param("clip", marks=pytest.mark.slow)])
def test_replaced_storage_and_another_clip_take_effect(what: str, graphs: None) -> None:
    def change(step: GradientStep) -> None:
        if what == "clip":
            step.max_grad_norm = 0.01
        else:
            for parameter in step.parameters:
                parameter.data = parameter.data.clone()

    behind, _ = run_both(lambda groups: torch.optim.SGD(groups, lr=0.1), change)
    inside, _ = run_both(OPTIMIZERS["Adam"], change)
    assert not any(is_whole(behind))
    assert all(is_whole(inside))


@pytest.mark.parametrize("betas", [(0.9, 0.999), pytest.param((0.9, 0.9999), marks=pytest.mark.slow)])
@pytest.mark.slow
def test_radams_first_moves_have_the_eager_size(betas: tuple[float, float]) -> None:
    moves: list[list[Tensor]] = []
    for compile in (True, False):
        torch.manual_seed(0)
        loss = Squared().double()
        optimizer = torch.optim.RAdam(loss.parameters(), lr=0.02, betas=betas)
        step = GradientStep({"team": loss}, optimizer, 0.5, compile=compile)
        moves.append([])
        for minibatch in minibatches(12):
            before = loss.network[0].weight.detach().clone()
            step(minibatch.double())
            moves[-1].append(loss.network[0].weight.detach() - before)
    for actual, expected in zip(*moves, strict=True):
        assert ((actual - expected).norm() / expected.norm()).item() < 1e-5


class ActorAndCritic(nn.Module):
    """Two losses of two networks."""

    def __init__(self) -> None:
        super().__init__()
        self.actor, self.critic = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, minibatch: TensorDictBase) -> dict[str, Tensor]:
        parts = {"loss_actor": self.actor, "loss_value": self.critic}
        losses = {name: (part(minibatch["x"]) - minibatch["y"]).square().mean() for name, part in parts.items()}
        return {**losses, "entropy": losses["loss_actor"].detach()}


def delayed(compile: bool, every: int = 3) -> GradientStep:
    torch.manual_seed(0)
    loss = ActorAndCritic()
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.02, fused=True)
    return GradientStep({"team": loss}, optimizer, 0.5, every={"loss_actor": every}, compile=compile)


def test_a_loss_that_waits_is_learned_from_at_every_so_many_th_step(graphs: None) -> None:
    compiled, eager, always = delayed(True), delayed(False), delayed(False, every=1)
    for index, minibatch in enumerate(minibatches(8), 1):
        before = compiled.losses["team"].actor.weight.detach().clone()  # type: ignore[union-attr]
        metrics = [step(minibatch.clone()) for step in (compiled, eager)]
        torch.testing.assert_close(metrics[0], metrics[1], rtol=2e-5, atol=2e-6)
        assert torch.equal(before, compiled.losses["team"].actor.weight) is (index % 3 != 0)  # type: ignore[union-attr]
        assert_alike(everything(compiled), everything(eager))
        always(minibatch.clone())
        critics = [step.losses["team"].critic.weight for step in (eager, always)]  # type: ignore[union-attr]
        assert torch.equal(*critics)
    assert compiled.compile
    assert len(compiled._compiled) == 2
    # Adam counts the actor's own steps.
    steps = {int(state["step"]) for state in compiled.optimizer.state.values()}
    assert steps == {2, 8}


def test_a_resumed_step_waits_as_long_as_the_one_that_never_stopped() -> None:
    whole, stopped, resumed = delayed(False), delayed(False), delayed(False)
    first, second = minibatches(8)[:4], minibatches(8)[4:]
    for minibatch in first:
        whole(minibatch.clone())
        stopped(minibatch.clone())
    resumed.load_state_dict(copy.deepcopy(stopped.state_dict()))
    for minibatch in second:
        whole(minibatch.clone())
        resumed(minibatch.clone())
    for ours, theirs in zip(everything(resumed).values(), everything(whole).values(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_loss_that_nothing_gives_cannot_wait() -> None:
    step = GradientStep({"team": Squared()}, torch.optim.SGD([torch.zeros(1)]), 1.0, every={"loss_actor": 2})
    with pytest.raises(UserError, match=r"every\['loss_actor'\]: no loss gives it; expected one of \['loss_x'\]"):
        step(minibatches(1)[0])
    step = GradientStep({"team": ActorAndCritic()}, torch.optim.SGD([torch.zeros(1)]), 1.0, every={"entropy": 2})
    with pytest.raises(
        UserError, match=r"every\['entropy'\]: no loss gives it; expected one of \['loss_actor', 'loss_v"
    ):
        step(minibatches(1)[0])
    step = GradientStep({"team": Squared()}, torch.optim.SGD([torch.zeros(1)]), 1.0, every={"loss_x": 2})
    with pytest.raises(UserError, match=r"every=\{'loss_x': 2\}: all losses wait at step 1; leave one out"):
        step(minibatches(1)[0])
    with pytest.raises(UserError, match=r"every\['loss_x'\]=0: expected 1 or more"):
        GradientStep({"team": Squared()}, torch.optim.SGD([torch.zeros(1)]), 1.0, every={"loss_x": 0})


class ActorCritic(nn.Module):
    """One loss whose actor and critic begin with the same layer."""

    def __init__(self) -> None:
        super().__init__()
        shared = nn.Linear(3, 4)
        self.actor, self.critic = nn.Sequential(shared, nn.Linear(4, 2)), nn.Sequential(shared, nn.Linear(4, 1))

    def forward(self, minibatch: TensorDictBase) -> dict[str, Tensor]:
        outputs = (network(minibatch["x"]) for network in (self.actor, self.critic))
        return {f"loss_{name}": output.square().mean() for name, output in zip("ac", outputs, strict=True)}


def test_the_norm_of_a_group_has_a_shared_parameter_once() -> None:
    torch.manual_seed(0)
    loss = ActorCritic()
    step = GradientStep({"team": loss}, torch.optim.Adam(loss.parameters()), 1e9)
    metrics, gradients = step.gradients(minibatches(1)[0])
    expected = torch.cat([gradient.flatten() for gradient in gradients if gradient is not None]).norm()
    torch.testing.assert_close(metrics["grad_norm"], expected)
