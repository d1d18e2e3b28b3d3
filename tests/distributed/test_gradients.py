"""Two learners with a part of a batch each against one with all of it, dead agents among them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from ctde_kit.distributed import AverageGradients, average_gradients
from ctde_kit.errors import UserError
from ctde_kit.modules import QMixer, RunningMoments, ValueNorm, counterfactual_critic, value_critic
from ctde_kit.objectives import COMAActorLoss, MAPPOLoss, QMixLoss, masked_mean, normalize_advantage
from ctde_kit.specs import TeamSpec
from ctde_kit.training import Epochs, GradientStep
from tests.contracts.entry_cases import CASES, Case, batch_of
from tests.contracts.fakes import (
    N_ENVS,
    add_targets,
    collect,
    endings,
    group_spec,
    make_actor,
    make_network,
    make_q_actor,
)
from tests.distributed.threads import side_by_side
from tests.recipes.small_happo import small_happo_config

HALF = N_ENVS // 2

pytestmark = pytest.mark.usefixtures("float64")


def mappo() -> tuple[nn.Module, TensorDictBase]:
    group = group_spec("wolves", 3, "categorical", mask=True, action_mask=True)
    team = TeamSpec((group,))
    actor = make_actor(group)
    batch, _ = collect(team, {"wolves": actor}, *endings())
    add_targets(batch, group.keys)
    loss = MAPPOLoss(actor, value_critic(team, group, make_network(False)), clip_value=0.1, keys=group.keys)
    return loss, batch


def qmix() -> tuple[nn.Module, TensorDictBase]:
    group = group_spec("wolves", 3, "categorical", mask=True, action_mask=True)
    team = TeamSpec((group,), state_dim=10)
    actor = make_q_actor(group)
    batch, _ = collect(team, {"wolves": actor}, *endings())
    batch["next", "reward"] = torch.randn(*batch.shape, 1)
    return QMixLoss({"wolves": actor}, QMixer(team, embed_dim=9), gamma=0.9), batch


def dying_unevenly(batch: TensorDictBase) -> TensorDictBase:
    """Most agents of the first half are dead; of the second half, few."""
    mask = batch["wolves", "mask"]
    mask[:HALF] &= torch.rand_like(mask[:HALF], dtype=torch.float64) < 0.3
    batch["next", "wolves", "mask"][:HALF, :-1] &= mask[:HALF, 1:]
    counts = mask[:HALF].sum(), mask[HALF:].sum()
    assert 0 < counts[0] < 0.6 * counts[1]
    return batch


def alike(case: Callable[[], tuple[nn.Module, TensorDictBase]]) -> tuple[nn.Module, TensorDictBase]:
    torch.manual_seed(0)
    loss, batch = case()
    return loss, dying_unevenly(batch)


@pytest.mark.parametrize("max_grad_norm", [1e-2, 1e9])
@pytest.mark.parametrize("case", [mappo, qmix])
def test_halves_give_the_gradient_of_the_whole(
    case: Callable[[], tuple[nn.Module, TensorDictBase]], max_grad_norm: float
) -> None:
    (loss, batch), *copies = [alike(case) for _ in range(3)]
    whole = _step(loss, max_grad_norm).gradients(batch)[1]
    halves = [(copies[0][0], batch[:HALF]), (copies[1][0], batch[HALF:])]

    def learn(rank: int, average: AverageGradients) -> list[Tensor | None]:
        own, part = halves[rank]
        step = _step(own, max_grad_norm)
        step.average = average
        return step.gradients(part)[1]

    for found in side_by_side(2, learn):
        assert sum(gradient is not None for gradient in whole) > 3
        for gradient, expected in zip(found, whole, strict=True):
            assert (gradient is None) == (expected is None)
            if gradient is not None:
                torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


def immortal_mappo() -> tuple[nn.Module, TensorDictBase]:
    group = group_spec("wolves", 3, "categorical")
    team, actor = TeamSpec((group,)), make_actor(group)
    batch, _ = collect(team, {"wolves": actor}, *endings())
    add_targets(batch, group.keys)
    critic = value_critic(team, group, make_network(False))
    return MAPPOLoss(actor, critic, clip_value=0.1, entropy_coeff=0.1, keys=group.keys), batch


def immortal_coma() -> tuple[nn.Module, TensorDictBase]:
    group = group_spec("wolves", 3, "categorical")
    team, actor = TeamSpec((group,)), make_actor(group)
    batch, _ = collect(team, {"wolves": actor}, *endings())
    critic = counterfactual_critic(team, group, make_network(False)).requires_grad_(False)
    return COMAActorLoss(actor, critic, entropy_coeff=0.1), batch


@pytest.mark.parametrize("case", [immortal_mappo, immortal_coma])
def test_parts_of_unequal_size_give_the_gradient_and_metrics_of_the_whole(
    case: Callable[[], tuple[nn.Module, TensorDictBase]],
) -> None:
    """Nobody dies, and there is no mask."""
    made = []
    for _ in range(3):
        torch.manual_seed(0)
        made.append(case())
    (loss, batch), *copies = made
    expected_metrics, whole = _step(loss, 1e9).gradients(batch)
    parts = [(copies[0][0], batch[:1]), (copies[1][0], batch[1:])]

    def learn(rank: int, average: AverageGradients) -> tuple[Any, list[Tensor | None]]:
        own, part = parts[rank]
        step = _step(own, 1e9)
        step.average = average
        return step.gradients(part)

    found = side_by_side(2, learn)
    for _, gradients in found:
        assert sum(gradient is not None for gradient in whole) > 3
        for gradient, expected in zip(gradients, whole, strict=True):
            assert (gradient is None) == (expected is None)
            if gradient is not None:
                torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)
    for name, expected in expected_metrics.items():
        mean = (found[0][0][name] + found[1][0][name]) / 2
        torch.testing.assert_close(mean, expected, rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("masked", [False, True])
def test_the_mean_over_learners_is_the_mean_of_all_entries(masked: bool) -> None:
    parts = [torch.tensor([10.0]), torch.tensor([0.0, 0.0, 2.0], requires_grad=True)]

    def mean(rank: int, _: AverageGradients) -> Tensor:
        return masked_mean(parts[rank], torch.ones_like(parts[rank], dtype=torch.bool) if masked else None)

    found = side_by_side(2, mean)
    assert (sum(found) / 2).item() == 3
    found[1].backward()
    assert parts[1].grad is not None
    assert parts[1].grad.tolist() == [0.5] * 3  # halved by the mean over learners


def _step(loss: nn.Module, max_grad_norm: float) -> GradientStep:
    trainable = [parameter for parameter in loss.parameters() if parameter.requires_grad]
    return GradientStep({"team": loss}, torch.optim.SGD(trainable, lr=0.1), max_grad_norm)


# Of each algorithm a case with masks that draws no random numbers, at least not for all of its networks.
MASKED = [
    "MAPPO multi-discrete",
    "IQL, recurrent",
    "QMIX",
    "QPLEX",
    "MADDPG",
    "MADDPG recurrent",
    "MADDPG with beliefs",
    "M3DDPG",
    "FACMAC",
    "COMA, critic",
    "COMA, actor with dead agents",
]


@pytest.mark.parametrize("name", MASKED)
def test_halves_of_any_loss_give_the_gradient_of_the_whole(name: str) -> None:
    case = CASES[name]
    batch = batch_of(case.build().entries, (8, *case.batch[1:]))
    whole, other = (_drawn(case, batch, seed) for seed in (0, 1))
    compared = [gradient is None or torch.equal(gradient, again) for gradient, again in zip(whole, other, strict=True)]
    assert sum(compared) > 3
    losses, halves = [case.build(), case.build()], [batch[:4].clone(), batch[4:].clone()]

    def learn(rank: int, average: AverageGradients) -> list[Tensor | None]:
        step = _step(losses[rank], 1e9)
        step.average = average
        return step.gradients(halves[rank])[1]

    for found in side_by_side(2, learn):
        for gradient, expected, is_compared in zip(found, whole, compared, strict=True):
            assert (gradient is None) == (expected is None)
            if gradient is not None and is_compared:
                torch.testing.assert_close(gradient, expected, rtol=1e-8, atol=1e-11)


def _drawn(case: Case, batch: TensorDictBase, seed: int) -> list[Any]:
    """The gradients of the whole batch, with other random numbers for each seed."""
    step = _step(case.build(), 1e9)
    torch.manual_seed(seed)
    return step.gradients(batch.clone())[1]


@pytest.mark.parametrize("over", ["joint", "agent"])
def test_advantages_are_normalized_over_the_whole_batch(over: Any) -> None:
    advantage, mask = torch.randn(N_ENVS, 7, 3, 1) + 2, torch.rand(N_ENVS, 7, 3, 1) < 0.6
    mask[:HALF] &= torch.rand(HALF, 7, 3, 1) < 0.5
    whole = normalize_advantage(advantage, mask, over)
    halves = [(advantage[:HALF], mask[:HALF]), (advantage[HALF:], mask[HALF:])]
    found = side_by_side(2, lambda rank, _: normalize_advantage(*halves[rank], over))
    torch.testing.assert_close(torch.cat(found), whole, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("make", [ValueNorm, lambda: RunningMoments(1)])
def test_running_statistics_are_those_of_the_whole_batch(make: Callable[[], Any]) -> None:
    returns, mask = torch.randn(N_ENVS, 7, 1) * 3 + 1, torch.rand(N_ENVS, 7, 1) < 0.7
    mask[:HALF] &= torch.rand(HALF, 7, 1) < 0.4
    whole = make()

    def shaped(part: Tensor, norm: Any) -> Tensor:
        return part if isinstance(norm, ValueNorm) else part.squeeze(-1)

    for _ in range(2):
        whole.update(returns, shaped(mask, whole))
        returns = returns + 1

    def learn(rank: int, _: AverageGradients) -> Any:
        norm, values = make(), returns - 2
        rows = slice(0, HALF) if rank == 0 else slice(HALF, None)
        for _update in range(2):
            norm.update(values[rows], shaped(mask[rows], norm))
            values = values + 1
        return norm

    for norm in side_by_side(2, learn):
        for name, value in whole.state_dict().items():
            torch.testing.assert_close(norm.state_dict()[name], value, rtol=1e-9, atol=1e-12)


def test_all_learners_stop_an_iteration_together() -> None:
    def epochs(rank: int, _: AverageGradients) -> int:
        kl = torch.tensor(0.0 if rank == 0 else 0.3)
        return len(list(Epochs(5, target_kl=0.1)([torch.zeros(())], lambda _: {"approx_kl": kl})))

    assert side_by_side(2, epochs) == [1, 1]


def test_an_update_that_draws_an_order_is_refused() -> None:
    torch.set_default_dtype(torch.float32)
    average = AverageGradients.__new__(AverageGradients)
    with pytest.raises(UserError, match="several learners cannot share a SequentialUpdate"):
        average_gradients(small_happo_config().build(), average)
