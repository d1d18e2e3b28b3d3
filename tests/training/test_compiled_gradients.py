"""Compiled gradients: metrics and gradients equal the eager ones, on other data and after the weights have moved."""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn

from ctde_kit.keys import GroupKeys
from ctde_kit.modules import QMixer, ValueNorm, value_critic
from ctde_kit.objectives import MAPPOLoss, QMixLoss
from ctde_kit.specs import TeamSpec
from ctde_kit.training import GradientStep
from ctde_kit.training.compiled_gradients import CompiledGradients
from tests.conftest import graphs_as_traced
from tests.contracts.fakes import add_targets, collect, endings, group_spec, make_actor, make_network, make_q_actor

KEYS = GroupKeys()


class Case:
    """A gradient step of MAPPO, compiled and plain."""

    def __init__(self, kind: str):
        torch.manual_seed(0)
        self.team = TeamSpec((group_spec(kind=kind),))
        self.actor = make_actor(self.team["agents"], learned_scale=kind == "continuous")
        self.actor.agent_network.spare = nn.Parameter(torch.ones(3))
        critic = value_critic(self.team, self.team["agents"], make_network(False))
        self.norm = ValueNorm()
        self.norm.update(torch.randn(50))
        self.loss = MAPPOLoss(
            self.actor, critic, entropy_coeff=0.1, clip_value=0.2, samples_mc_entropy=2, value_norm=self.norm
        )
        optimizer = torch.optim.Adam(self.loss.parameters(), lr=0.05)
        self.step = GradientStep({"agents": self.loss}, optimizer, max_grad_norm=0.2)
        self.step(self.minibatch())

    @functools.cached_property
    def compiled(self) -> CompiledGradients:
        """Compiled when it is first called."""
        parameters_and_buffers = [*self.loss.parameters(), *self.loss.buffers()]
        return CompiledGradients(self.step.gradients, self.minibatch(), parameters_and_buffers)

    def minibatch(self) -> TensorDictBase:
        batch = collect(self.team, {"agents": self.actor}, *endings())[0]
        return add_targets(batch, KEYS).reshape(-1)

    def both(self, minibatch: TensorDictBase) -> list[tuple[dict[str, Tensor], list[Tensor | None]]]:
        """What the compiled and the eager function return under one seed."""
        results = []
        for function in (self.compiled, self.step.gradients):
            torch.manual_seed(7)
            results.append(function(minibatch.clone()))
        return results


@pytest.fixture(
    scope="module",
    params=[
        "continuous",
        "categorical",
        pytest.param("continuous compiled", marks=pytest.mark.slow),
        pytest.param("categorical compiled", marks=pytest.mark.slow),
    ],
)
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    """The default run has both as they were traced; ``nox -s slow`` compiles them, too."""
    kind, _, compiled = request.param.partition(" ")
    with contextlib.nullcontext() if compiled else graphs_as_traced():
        yield Case(kind)


def assert_close(results: list[tuple[dict[str, Tensor], list[Tensor | None]]]) -> None:
    (metrics, gradients), (expected_metrics, expected) = results
    assert list(metrics) == list(expected_metrics)
    for name, value in expected_metrics.items():
        torch.testing.assert_close(
            metrics[name], value.float(), rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )
    for gradient, value in zip(gradients, expected, strict=True):
        assert (gradient is None) == (value is None)
        if value is not None:
            torch.testing.assert_close(gradient, value, rtol=1e-5, atol=1e-6)


def test_other_data_and_other_weights_give_the_eager_gradients(case: Case) -> None:
    for _ in range(3):
        minibatch = case.minibatch()
        results = case.both(minibatch)
        assert_close(results)
        before = copy.deepcopy(case.loss.state_dict())
        case.step(minibatch)
        assert not torch.equal(results[0][0]["loss_objective"], case.both(minibatch)[0][0]["loss_objective"])
        assert any(not torch.equal(value, before[name]) for name, value in case.loss.state_dict().items())


def test_clipping_acts_only_above_the_limit(case: Case) -> None:
    minibatch = case.minibatch()
    minibatch[KEYS.value_target] *= 30
    limit = case.step.max_grad_norm
    large = case.both(minibatch)
    assert large[0][0]["grad_norm"] > limit
    assert_close(large)
    critic = [g for p, g in zip(case.step.parameters, large[0][1], strict=True) if _is_of(case, p) and g is not None]
    assert torch.stack([g.norm() for g in critic]).norm().item() == pytest.approx(limit, rel=1e-4)

    minibatch[KEYS.advantage] *= 1e-3
    with torch.no_grad():
        values = case.loss.critic_network(minibatch.clone())[KEYS.state_value]
        minibatch[KEYS.value_target] = case.norm.denormalize(values) + 1e-3
    small = case.both(minibatch)
    assert_close(small)
    critic = [g for p, g in zip(case.step.parameters, small[0][1], strict=True) if _is_of(case, p) and g is not None]
    assert 0 < torch.stack([g.norm() for g in critic]).norm().item() < limit


def _is_of(case: Case, parameter: nn.Parameter) -> bool:
    return any(parameter is other for other in case.loss.critic_network.parameters())


def test_statistics_that_moved_are_seen(case: Case) -> None:
    minibatch = case.minibatch()
    before = case.both(minibatch)
    for _ in range(20):
        case.norm.update(10 + 3 * torch.randn(50))
    after = case.both(minibatch)
    assert_close(after)
    assert (after[0][0]["loss_critic"] - before[0][0]["loss_critic"]).abs() > 0.01


def test_an_unused_parameter_has_no_gradient(case: Case) -> None:
    index = next(i for i, p in enumerate(case.step.parameters) if p is case.actor.agent_network.spare)
    compiled, eager = case.both(case.minibatch())
    assert compiled[1][index] is None
    assert eager[1][index] is None
    case.step(case.minibatch())
    assert torch.equal(case.actor.agent_network.spare, torch.ones(3))


@pytest.mark.slow
def test_compiling_draws_no_random_numbers(graphs: None) -> None:
    case = Case("continuous")
    states = []
    for compile in (True, False):
        step = GradientStep({"agents": case.loss}, case.step.optimizer, 1.0, compile=compile)
        minibatch = case.minibatch()
        torch.manual_seed(3)
        step(minibatch)
        assert step.compile == compile
        states.append(torch.random.get_rng_state())
    assert torch.equal(*states)


def q_loss() -> tuple[QMixLoss, TensorDictBase]:
    team = TeamSpec((group_spec(),), state_dim=4)
    actor = make_q_actor(team["agents"])
    batch = collect(team, {"agents": actor}, *endings())[0].reshape(-1)
    batch.set(("next", "reward"), torch.randn(*batch.shape, 1))
    return QMixLoss({"agents": actor}, QMixer(team, embed_dim=5), gamma=0.9), batch


def test_what_a_loss_writes_is_written(graphs: None) -> None:
    loss, minibatch = q_loss()
    step = GradientStep({"team": loss}, torch.optim.SGD(loss.parameters(), lr=0.1), 1.0, compile=True)
    step(minibatch.clone())
    assert step.compile
    minibatch[KEYS.observation] = torch.randn_like(minibatch[KEYS.observation])
    compiled, eager = minibatch.clone(), minibatch.clone()
    assert_close([next(iter(step._compiled.values())).compiled(compiled), step.gradients(eager)])
    written = set(eager.keys(True, True)) - set(minibatch.keys(True, True))
    assert written == {"td_error"}
    torch.testing.assert_close(compiled["td_error"], eager["td_error"], rtol=1e-5, atol=1e-6)


class Branching(nn.Module):
    """A loss that looks at its data."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, minibatch: TensorDictBase) -> dict[str, Tensor]:
        error = self.layer(minibatch["x"]).square().mean()
        return {"loss_x": error if minibatch["x"].sum() > 0 else 2 * error}


def test_a_loss_that_branches_on_data_is_not_compiled(caplog: pytest.LogCaptureFixture) -> None:
    loss = Branching()
    step = GradientStep({"agents": loss}, torch.optim.SGD(loss.parameters(), lr=0.1), 1.0, compile=True)
    before = loss.layer.weight.clone()
    with caplog.at_level(logging.WARNING, logger="ctde_kit"):
        step(TensorDict({"x": torch.randn(3, 2)}, [3]))
        metrics = step(TensorDict({"x": torch.randn(3, 2)}, [3]))
    (record,) = caplog.records
    assert record.getMessage().startswith("the gradient step is not compiled: branches on a tensor at test_compiled")
    assert not step.compile
    assert metrics["grad_norm"] > 0
    assert not torch.equal(loss.layer.weight, before)


@pytest.mark.parametrize(
    "name", [*(pytest.param(name, marks=pytest.mark.slow) for name in ("continuous", "categorical")), "qmix"]
)
def test_torch_compile_finds_one_graph(name: str) -> None:
    torch._dynamo.reset()
    loss: Any
    if name == "qmix":
        loss, minibatch = q_loss()
    else:
        team = TeamSpec((group_spec(kind=name),))
        actor = make_actor(team["agents"])
        loss = MAPPOLoss(
            actor, value_critic(team, team["agents"], make_network(False)), clip_value=0.2, value_norm=ValueNorm()
        )
        minibatch = add_targets(collect(team, {"agents": actor}, *endings())[0], KEYS).reshape(-1)
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    torch.manual_seed(1)
    outputs = compiled(minibatch.clone())
    torch.manual_seed(1)
    for key, value in loss(minibatch.clone()).items():
        torch.testing.assert_close(outputs[key], value, msg=lambda m, key=key: f"{key}: {m}")
