"""The training loop: what it yields, and that losses which are not finite stop it."""

from __future__ import annotations

import pytest
import torch
from tensordict import TensorDict

from ctde_kit.errors import NotFiniteError, UserError
from ctde_kit.training import Epochs, LinearEpsilon, LinearLearningRate, iterate
from ctde_kit.training.loop import summarize
from tests.recipes.small import small_config


def test_not_finite_loss_stops_the_run_with_its_name() -> None:
    parts = small_config().build()
    loop = iterate(parts)
    next(loop)
    parts.update.losses["agents"].critic_coeff = float("nan")
    with pytest.raises(NotFiniteError, match="loss_critic is nan in update 1 of 6 at 120 frames"):
        next(loop)


def test_first_minibatch_after_collection_has_ratio_one() -> None:
    for kind in ("mlp", "gru"):
        length = 10 if kind == "gru" else None
        parts = small_config(kind, epochs=1, minibatch_frames=60, sequence_length=length, total_frames=300).build()
        iterations = list(iterate(parts))
        assert len(iterations) == 5
        for iteration in iterations:
            assert abs(iteration.metrics["approx_kl"]) < 1e-6, (kind, iteration.frames)
            assert iteration.metrics["clip_fraction"] == 0
            assert abs(iteration.metrics["loss_objective"]) < 1e-5


def test_only_losses_and_gradients_must_be_finite() -> None:
    history = [{"loss_critic": torch.tensor(1.0), "explained_variance": torch.tensor(float("-inf"))}]
    assert summarize(history, 60)["loss_critic"] == 1.0
    with pytest.raises(NotFiniteError, match="grad_norm is inf in update 1 of 1 at 60 frames"):
        summarize([{"grad_norm": torch.tensor(float("inf"))}], 60)


def test_each_metric_is_a_mean_over_the_updates_that_have_it() -> None:
    one, two = torch.tensor(1.0), torch.tensor(2.0)
    history = [{"kl": one, "loss_a": one}, {"loss_b": one}, {"kl": two, "loss_a": two}, {"kl": 4 * two, "loss_b": two}]
    found = summarize(history, 60)
    assert found == {"kl": pytest.approx(11 / 3), "loss_a": 1.5, "loss_b": 1.5, "num_updates": 4}
    history[2]["loss_a"] = torch.tensor(float("nan"))
    with pytest.raises(NotFiniteError, match="loss_a is nan in update 3 of 4 at 60 frames"):
        summarize(history, 60)


def test_schedules_that_cannot_be_followed_are_refused() -> None:
    for schedule in (
        lambda: LinearEpsilon([torch.tensor(1.0)], 1.0, 0.0, frames=0),
        lambda: LinearLearningRate(torch.optim.Adam([torch.zeros(1, requires_grad=True)]), 1.0, 0.0, frames=0),
    ):
        with pytest.raises(UserError, match="frames=0: expected 1 or more"):
            schedule()
    minibatches = [TensorDict({}, [3])]
    with pytest.raises(UserError, match="no metric of the update ends with 'approx_kl'"):
        list(Epochs(2, target_kl=0.1)(minibatches, lambda _: {"loss_value": torch.zeros(())}))
