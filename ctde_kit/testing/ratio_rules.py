"""What the first update of a policy-gradient loss must be: on-policy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch
from tensordict import TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModuleBase
from torch import Tensor
from torch.distributions import Distribution

from ctde_kit.keys import IS_INIT
from ctde_kit.testing.comparing import number
from ctde_kit.testing.entry_names import as_tuple
from ctde_kit.testing.findings import NotApplicable, Violation, rule
from ctde_kit.testing.loss_case import LossCase

KL = ("approx_kl", "kl_approx", "kl")
CLIPPED = ("clip_fraction", "clip_frac")


@runtime_checkable
class HoldsActor(Protocol):
    """A loss that holds its policy, such as TorchRL's PPO losses."""

    actor_network: TensorDictModuleBase


@rule("The policy that learns first is the one that acted: where the ratio is not 1, the loss sees another policy.")
def first_ratio(case: LossCase) -> str:
    """Before any update each ratio of probabilities is 1."""
    with recorded_distributions(case) as distributions:
        case(case.batch)
    if not distributions:
        raise NotApplicable("the loss asks no actor for get_dist; give actor=, a ProbabilisticActor")
    stored, action = case.batch.get(case.names["sample_log_prob"]), case.batch.get(case.names["action"])
    log_prob = distributions[0].log_prob(action)
    if not isinstance(log_prob, Tensor):
        raise NotApplicable("the log-probability is not a tensor")
    if log_prob.shape != stored.shape:
        raise Violation(f"log-probabilities {list(log_prob.shape)} beside stored ones {list(stored.shape)}")
    ratio = valid_entries(case, (log_prob - stored).exp().detach())
    worst = float(ratio[(ratio - 1).abs().argmax()])
    if abs(worst - 1) > 1e-3:
        raise Violation(f"first ratio {number(worst)}, expected 1: {_reason(case)}")
    return f"first ratios 1, off by {number(abs(worst - 1))}"


@contextmanager
def recorded_distributions(case: LossCase) -> Iterator[list[Distribution]]:
    """Inside the block every distribution that the loss asks its actor for is kept."""
    actor: object = case.actor
    if not isinstance(actor, ProbabilisticTensorDictSequential) and isinstance(case.loss, HoldsActor):
        actor = case.loss.actor_network
    found: list[Distribution] = []
    if not isinstance(actor, ProbabilisticTensorDictSequential):
        yield found
        return
    original = actor.get_dist

    def get_dist(*args: TensorDictBase, **kwargs: TensorDictBase) -> Distribution:
        found.append(original(*args, **kwargs))
        return found[-1]

    actor.__dict__["get_dist"] = get_dist
    try:
        yield found
    finally:
        del actor.__dict__["get_dist"]


def valid_entries(case: LossCase, value: Tensor) -> Tensor:
    """The entries of living agents in real steps."""
    keep = torch.ones_like(value, dtype=torch.bool)
    alive, valid = case.batch.get(case.names["mask"], None), case.batch.get(case.names["padding_mask"], None)
    if alive is not None and alive.shape == value.shape:
        keep &= alive
    if valid is not None:
        keep &= valid.reshape(*valid.shape, *[1] * (value.ndim - valid.ndim)).expand_as(value)
    return value[keep]


def _reason(case: LossCase) -> str:
    recurrent = isinstance(case.loss, HoldsActor) and IS_INIT in {
        as_tuple(key)[-1] for key in case.loss.actor_network.in_keys
    }
    if IS_INIT in case.batch and case.batch.ndim == 1 and recurrent:
        return f"the minibatch {list(case.batch.shape)} was unrolled as one sequence"
    if recurrent:
        return "the hidden states at the beginning of sequences are not those that the policy acted with"
    return "the stored log-probabilities are not those of the policy that learns"


@rule("The KL of a policy from itself is 0, and no ratio of 1 is clipped: else the first update is off-policy.")
def first_kl(case: LossCase) -> str:
    """Before any update the loss's own KL and clip fraction are 0."""
    found = case(case.batch)
    shown = {name: float(found[name].mean()) for name in (*KL, *CLIPPED) if name in found}
    if not shown:
        raise NotApplicable(f"the loss gives none of {', '.join((*KL, *CLIPPED))}")
    for name, value in shown.items():
        if abs(value) > 1e-4:
            raise Violation(f"first {name} {number(value)}, expected 0")
    return ", ".join(f"first {name} {number(value)}" for name, value in shown.items())
