"""Which way a policy-gradient loss moves the policy: toward good actions, and toward entropy where it is paid for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torch.distributions import Distribution

from ctde_kit.testing.comparing import gradients, number
from ctde_kit.testing.findings import NotApplicable, Violation, rule
from ctde_kit.testing.loss_case import LossCase
from ctde_kit.testing.ratio_rules import recorded_distributions, valid_entries

SAMPLES = 32
# A bonus is estimated from few samples, and an advantage may be normalized, so the direction is known only roughly.
CLEARLY = 0.2


@rule("A loss with the wrong sign makes bad actions likelier; training then looks like a task that is too hard.")
def advantage_is_followed(case: LossCase) -> str:
    """A step on the loss raises the log-probabilities of stored actions in proportion to their advantages."""
    advantage = case.batch.get(case.names["advantage"])
    random = torch.randn_like(advantage)
    rises, gradient = _gradients(case, random, case.actor_losses, lambda dist: _praised(case, dist, random))
    _, without = _gradients(case, torch.zeros_like(advantage), case.actor_losses, _entropy)
    change = gradient - without
    if not change.any():
        raise NotApplicable("the policy's gradient does not move with the batch's advantages")
    cosine = _cosine(-change, rises)
    if cosine < CLEARLY:
        raise Violation(
            f"the step that the loss makes has cosine {number(cosine)} with the one that makes praised actions "
            "likelier, expected 1: wrong sign, or another agent's advantage"
        )
    return f"cosine {number(cosine)} with the gradient of praised actions' log-probabilities"


@rule("An entropy bonus with the wrong sign pays for certainty: exploration ends early, and nothing says why.")
def entropy_is_paid_for(case: LossCase) -> str:
    """Without advantages what is left of the policy's gradient does not lower the entropy."""
    advantage = case.batch.get(case.names["advantage"])
    names = [name for name in case.actor_losses if "entropy" in name] or case.actor_losses
    rises, gradient = _gradients(case, torch.zeros_like(advantage), names, _entropy)
    if not gradient.any() or not rises.any():
        raise NotApplicable("the loss has no entropy bonus")
    cosine = _cosine(-gradient, rises)
    if cosine < -CLEARLY:
        raise Violation(
            f"the step that is left without advantages has cosine {number(cosine)} with the one that raises the "
            "entropy: the bonus has the wrong sign"
        )
    return f"cosine {number(cosine)} with the gradient of the entropy"


def _gradients(
    case: LossCase, advantage: Tensor, names: Sequence[str], wanted: Callable[[Distribution], Tensor]
) -> tuple[Tensor, Tensor]:
    """Two gradients by the actor's parameters: of the mean of ``wanted``, and of the losses ``names``."""
    parameters = list(case.actor_parameters().values())
    batch: TensorDictBase = case.batch.clone().set(case.names["advantage"], advantage)
    with recorded_distributions(case) as distributions:
        found = case(batch)
    if not distributions:
        raise NotApplicable("the loss asks no actor for get_dist; give actor=, a ProbabilisticActor")
    losses = [found[name].sum() for name in names if name in found]
    if not losses:
        raise NotApplicable(f"the loss gives none of {', '.join(names)}")
    mean = valid_entries(case, wanted(distributions[0])).mean()
    return _flat(mean, parameters), _flat(torch.stack(losses).sum(), parameters)


def _flat(total: Tensor, parameters: list[Tensor]) -> Tensor:
    found = gradients(total, parameters)
    parts = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
    return torch.cat([part.flatten() for part in parts]).double()


def _cosine(first: Tensor, second: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(first, second, dim=0))


def _praised(case: LossCase, dist: Distribution, advantage: Tensor) -> Tensor:
    """Log-probabilities of the stored actions, weighted by advantages."""
    log_prob = dist.log_prob(case.batch.get(case.names["action"]))
    if not isinstance(log_prob, Tensor):
        raise NotApplicable("the log-probability is not a tensor")
    return log_prob * (advantage.squeeze(-1) if advantage.ndim > log_prob.ndim else advantage)


def _entropy(dist: Distribution) -> Tensor:
    try:
        return dist.entropy()
    except NotImplementedError:
        return -dist.log_prob(dist.rsample(torch.Size((SAMPLES,)))).mean(0)
