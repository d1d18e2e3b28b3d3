"""Recurrent networks' updates as graphs: the same numbers as eager ones; what loops over steps stays eager."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ctde_kit.modules import MultiAgentActor, MultiAgentMLP, own_observation
from ctde_kit.recipes.wiring.recurrence import is_recurrent, loops_over_steps
from ctde_kit.training import GradientStep, Parts, UpdateWithTargets, iterate
from tests.contracts.fakes import group_spec, make_actor
from tests.recipes.small import network, shared_config, small_config
from tests.recipes.small_maddpg import small_maddpg_config
from tests.recipes.small_q import small_q_config

RECIPES: dict[str, Callable[[], Any]] = {
    "MAPPO": lambda: small_config("gru", compile="off"),
    "QMIX, burn-in": lambda: small_q_config("gru", "sequences", compile="off"),
    "MAPPO, channel": lambda: small_config("gru", actor=network("commnet gru"), compile="off"),
    "IPPO, one network": lambda: shared_config("gru", compile="off"),
    "MADDPG": lambda: small_maddpg_config("gru", "sequences", compile="off"),
}
OFTEN = ("MAPPO", "IPPO, one network")


def gradient_step(parts: Parts) -> GradientStep:
    step: Any = parts.update
    return step.update if isinstance(step, UpdateWithTargets) else step


@pytest.mark.parametrize(
    "recipe", [name if name in OFTEN else pytest.param(name, marks=pytest.mark.slow) for name in RECIPES]
)
def test_updates_are_the_eager_ones(recipe: str, graphs: None) -> None:
    results = []
    for compiled in (True, False):
        torch.manual_seed(0)
        parts = RECIPES[recipe]().build()
        step = gradient_step(parts)
        step.compile = compiled
        metrics = [iteration.metrics for iteration in iterate(parts)]
        assert bool(step._compiled) == compiled == step.compile
        results.append(([parameter.detach() for parameter in step.parameters], metrics[-1]["grad_norm"]))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("make", "passes"), [(shared_config, 1), (small_config, 2)])
def test_a_graph_unrolls_each_network_once(make: Callable[..., Any], passes: int, graphs: None) -> None:
    parts = make("gru", compile="off", total_frames=60).build()
    step = gradient_step(parts)
    step.compile = True
    next(iterate(parts))
    (compiled,) = step._compiled.values()
    names = [str(node.target) for node in compiled.compiled.graph.module.graph.nodes]
    for name in ("gru_sequence", "gru_sequence_backward"):
        assert sum(target.split(".")[1:2] == [name] for target in names) == passes


class Loop(nn.Module):
    """A recurrent network that a user wrote."""

    recurrent, hidden_size = True, 4

    def __init__(self) -> None:
        super().__init__()
        self.network = MultiAgentMLP(5, 4, n_agents=3)

    def forward(self, x: Tensor, hidden: Tensor, is_init: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        after = self.network(x) + hidden
        return after, after, hidden


def test_a_loop_over_steps_is_told_from_one_operation() -> None:
    group = group_spec(kind="categorical")
    ours, feed_forward = make_actor(group, recurrent=True), make_actor(group)
    theirs = MultiAgentActor(group, own_observation(group), Loop())
    assert [is_recurrent(actor) for actor in (ours, feed_forward, theirs)] == [True, False, True]
    assert [loops_over_steps(actor) for actor in (ours, feed_forward, theirs)] == [False, False, True]
    assert loops_over_steps(ours, theirs)
