"""Targets as pure functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ctde_kit.errors import UserError
from ctde_kit.objectives import generalized_advantage_estimate, n_step_return, td_lambda_return

SHAPE = (4, 7, 3, 1)


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 1)


def flags(*values: int) -> Tensor:
    return torch.tensor(values).bool().reshape(-1, 1, 1)


def random_steps(shape: tuple[int, ...] = SHAPE) -> dict[str, Tensor]:
    """Values that agree with each other: the next value of a step is the value of the following one, unless done."""
    value, after_end = torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
    done = torch.rand(shape) < 0.3
    following = torch.cat([value[..., 1:, :, :], after_end[..., :1, :, :]], -3)
    return {
        "value": value,
        "next_value": torch.where(done, after_end, following),
        "reward": torch.randn(shape, dtype=torch.float64),
        "done": done,
        "terminated": done & (torch.rand(shape) < 0.5),
    }


def no_value(steps: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in steps.items() if name != "value"}


FUNCTIONS: dict[str, Callable[[dict[str, Tensor]], Tensor]] = {
    "gae": lambda steps: generalized_advantage_estimate(0.9, 0.8, **steps),
    "td_lambda": lambda steps: td_lambda_return(0.9, 0.8, **no_value(steps)),
    "n_step": lambda steps: n_step_return(0.9, 3, **no_value(steps)),
}


def test_gae_by_hand() -> None:
    # Deltas: 1 + 0.5*4 - 2 = 1, 2 + 0.5*6 - 4 = 1, 3 + 0.5*8 - 6 = 1; the trace decays by 0.25.
    advantage = generalized_advantage_estimate(
        0.5, 0.5, column(2, 4, 6), column(4, 6, 8), column(1, 2, 3), flags(0, 0, 0), flags(0, 0, 0)
    )
    assert advantage.flatten().tolist() == [1.3125, 1.25, 1]


def test_truncation_bootstraps_and_cuts_the_trace() -> None:
    # The middle step is truncated before an observation worth 10: 2 + 0.5*10 - 4 = 3, and nothing later reaches it.
    advantage = generalized_advantage_estimate(
        0.5, 0.5, column(2, 4, 6), column(4, 10, 8), column(1, 2, 3), flags(0, 1, 0), flags(0, 0, 0)
    )
    assert advantage.flatten().tolist() == [1.75, 3, 1]


def test_termination_does_not_bootstrap() -> None:
    # 2 - 4 = -2, whatever the last observation is worth.
    advantage = generalized_advantage_estimate(
        0.5, 0.5, column(2, 4, 6), column(4, 10, 8), column(1, 2, 3), flags(0, 1, 0), flags(0, 1, 0)
    )
    assert advantage.flatten().tolist() == [0.5, -2, 1]


@pytest.mark.parametrize("lmbda", [0.0, 0.5, 0.95, 1.0])
def test_lambda_returns_are_gae_plus_the_value(lmbda: float) -> None:
    steps = random_steps()
    advantage = generalized_advantage_estimate(0.97, lmbda, **steps)
    returns = td_lambda_return(0.97, lmbda, **no_value(steps))
    torch.testing.assert_close(returns - steps["value"], advantage, rtol=0, atol=1e-6)


def test_lambda_one_is_the_discounted_return() -> None:
    returns = td_lambda_return(0.5, 1.0, column(0, 0, 8), column(1, 2, 4), flags(0, 0, 1), flags(0, 0, 0))
    assert returns.flatten().tolist() == [4, 6, 8]  # 1 + 0.5*6, 2 + 0.5*8, 4 + 0.5*8


def test_lambda_zero_is_one_step() -> None:
    steps = no_value(random_steps())
    torch.testing.assert_close(td_lambda_return(0.9, 0.0, **steps), n_step_return(0.9, 1, **steps))


def plain_n_step(gamma: float, n: int, next_value: Any, reward: Any, done: Any, terminated: Any) -> float:
    """The return of the first step of one agent's lists."""
    total = 0.0
    for k in range(min(n, len(reward))):
        total += gamma**k * reward[k]
        if done[k] or k == min(n, len(reward)) - 1:
            return total + (0.0 if terminated[k] else gamma ** (k + 1) * next_value[k])
    raise AssertionError


@pytest.mark.parametrize("n", [1, 2, 3, 7, 20])
def test_n_step_returns_equal_a_plain_loop(n: int) -> None:
    steps = no_value(random_steps())
    returns = n_step_return(0.9, n, **steps)
    for env in range(4):
        for agent in range(3):
            lists = {name: tensor[env, :, agent, 0].tolist() for name, tensor in steps.items()}
            for t in range(7):
                expected = plain_n_step(0.9, n, **{name: values[t:] for name, values in lists.items()})
                assert returns[env, t, agent, 0].item() == pytest.approx(expected)


@pytest.mark.parametrize("target", FUNCTIONS.values(), ids=FUNCTIONS)
def test_envs_and_agents_do_not_mix(target: Callable[[dict[str, Tensor]], Tensor]) -> None:
    steps = random_steps()
    one = {name: tensor[2:3, :, 1:2] for name, tensor in steps.items()}
    torch.testing.assert_close(target(steps)[2:3, :, 1:2], target(one))


@pytest.mark.parametrize("target", FUNCTIONS.values(), ids=FUNCTIONS)
def test_time_is_third_from_the_end(target: Callable[[dict[str, Tensor]], Tensor]) -> None:
    steps = random_steps((2, 4, 7, 3, 1))
    flat = {name: tensor.flatten(0, 1) for name, tensor in steps.items()}
    torch.testing.assert_close(target(steps).flatten(0, 1), target(flat))


@pytest.mark.parametrize("garbage", [torch.inf, torch.nan])
@pytest.mark.parametrize("target", FUNCTIONS.values(), ids=FUNCTIONS)
def test_what_stands_behind_an_end_is_never_read(target: Callable[[dict[str, Tensor]], Tensor], garbage: float) -> None:
    steps = random_steps()
    steps["done"][:, 4], steps["terminated"][:, 4] = True, True
    expected = target(steps)[:, :5]
    steps["next_value"][:, 4:] = garbage
    steps["reward"][:, 5:] = garbage
    torch.testing.assert_close(target(steps)[:, :5], expected)


@pytest.mark.parametrize("name", ["next_value", "reward", "done", "terminated"])
@pytest.mark.parametrize("target", FUNCTIONS.values(), ids=FUNCTIONS)
def test_nothing_is_broadcast_over_agents(target: Callable[[dict[str, Tensor]], Tensor], name: str) -> None:
    steps = random_steps()
    steps[name] = steps[name][:, :, :1]
    with pytest.raises(UserError, match=rf"'{name}': \(4, 7, 1, 1\)"):
        target(steps)


def test_n_step_needs_a_step() -> None:
    with pytest.raises(UserError, match="n=0"):
        n_step_return(0.9, 0, **no_value(random_steps()))
