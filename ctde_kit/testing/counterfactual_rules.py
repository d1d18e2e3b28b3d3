"""What a counterfactual critic and the policy loss that learns from it must do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torch.distributions import Distribution

from ctde_kit.protocols import GivesProbabilities
from ctde_kit.testing.comparing import difference, garbage_like, gradients, number
from ctde_kit.testing.findings import NotApplicable, Violation, rule
from ctde_kit.testing.loss_case import LossCase
from ctde_kit.testing.ratio_rules import recorded_distributions, valid_entries

# What is more is no rounding.
CLOSE = 1e-5
# Advantages may be normalized, which turns the direction a little.
ALONG = 0.95


@rule("A baseline that knows the agent's own action takes away what that action is worth: the gradient is biased.")
def own_action_is_hidden(case: LossCase) -> str:
    """The critic's values for agent i move with the other agents' stored actions, and not with agent i's."""
    n_agents, before = case.names.several_agents(case.batch), _values(case, case.batch)
    axis, key = case.batch.ndim, case.names["action"]
    stored = case.batch.get(key)
    others = _other(stored, before.shape[-1], one_hot=stored.ndim == before.ndim)
    moves = torch.zeros(n_agents, n_agents)
    for agent in range(n_agents):
        action = stored.clone()
        action.select(axis, agent).copy_(others.select(axis, agent))
        after = _values(case, case.batch.clone().set(key, action))
        for row in range(n_agents):
            moves[row, agent] = difference(before.select(axis, row), after.select(axis, row))
    own, of_others = moves.diagonal(), moves - moves.diagonal().diag()
    if own.max() > CLOSE:
        agent = int(own.argmax())
        raise Violation(
            f"agent {agent}'s values move by {number(float(own[agent]))} with its own stored action, expected 0"
        )
    if not of_others.any():
        raise Violation("no value moves with another agent's stored action: nothing is kept as it was")
    return f"{n_agents} agents, values move with the others' actions alone"


@rule("An agent gains by what its action adds. Without a baseline it is praised for what its team-mates earn.")
def common_value_cancels(case: LossCase) -> str:
    """Other values by one number for all of an agent's actions leave the policy's gradient as it is."""

    def shifted(values: Tensor) -> Tensor:
        return values + 3 * torch.randn_like(values[..., :1])

    before, after = _policy_gradient(case, lambda values: values), _policy_gradient(case, shifted)
    gap = difference(before, after)
    if gap > 1e-3 * (CLOSE + float(before.abs().max())):
        raise Violation(
            f"the policy's gradient moves by {number(gap)} beside {number(float(before.abs().max()))} when all actions "
            "of an agent are worth one number more: there is no baseline"
        )
    return f"moves by {number(gap)} when all actions are worth one number more"


@rule("Nobody takes a forbidden action; its value, never learned, is noise in the baseline.")
def forbidden_values_change_nothing(case: LossCase) -> str:
    """Other values of forbidden actions leave the policy's gradient as it is."""
    mask = case.batch.get(case.names["action_mask"], None)
    if mask is None or mask.all():
        raise NotApplicable("all actions are allowed")
    # An agent that is allowed nothing takes the first action.
    forbidden = ~mask & mask.any(-1, keepdim=True)

    def spoiled(values: Tensor) -> Tensor:
        return torch.where(forbidden, garbage_like(values), values)

    before, after = _policy_gradient(case, lambda values: values), _policy_gradient(case, spoiled)
    gap = difference(before, after)
    if gap > 1e-3 * (CLOSE + float(before.abs().max())):
        raise Violation(f"the policy's gradient moves by {number(gap)} with values of forbidden actions, expected 0")
    return f"{int(forbidden.sum())} values changed nothing"


@rule("The step must make likelier what is worth more than the policy's own mean; else it is another algorithm.")
def counterfactual_advantage_is_followed(case: LossCase) -> str:
    """The policy's gradient is that of log-probabilities, weighted by ``Q(u) - sum pi(u') Q(u')``."""
    values = torch.randn_like(_values(case, case.batch))
    parameters = list(case.actor_parameters().values())
    with recorded_distributions(case) as distributions:
        found = _policy_gradient(case, lambda _: values) - _policy_gradient(case, torch.zeros_like)
    if not distributions:
        raise NotApplicable("the loss asks no actor for get_dist; give actor=, a ProbabilisticActor")
    dist, action = distributions[0], case.batch.get(case.names["action"])
    log_prob = dist.log_prob(action)
    index = action.int().argmax(-1) if action.shape == values.shape else action
    wanted = log_prob * _advantage(dist, values, index)
    rises = gradients(valid_entries(case, wanted).mean(), parameters)
    expected = _flat(rises, parameters)
    cosine = float(torch.nn.functional.cosine_similarity(-found, expected, dim=0))
    if cosine < ALONG:
        raise Violation(
            f"the step that the loss makes has cosine {number(cosine)} with the one of counterfactual advantages, "
            "expected 1: another baseline, the wrong sign, or another agent's advantage"
        )
    return f"cosine {number(cosine)} with the gradient of counterfactual advantages"


def _advantage(dist: Distribution, values: Tensor, index: Tensor) -> Tensor:
    probability = dist.probs if isinstance(dist, GivesProbabilities) else None
    if probability is None or probability.shape != values.shape:
        raise NotApplicable("the distribution has no probabilities, one per action")
    chosen = values.gather(-1, index.unsqueeze(-1)).squeeze(-1)
    return (chosen - (probability * values).sum(-1)).detach()


def _other(action: Tensor, n_choices: int, *, one_hot: bool) -> Tensor:
    """Another choice than each of these, which are indices or one-hot."""
    return action.roll(1, -1) if one_hot else (action + 1) % n_choices


def _critic(case: LossCase) -> nn.Module:
    if not isinstance(case.critic, nn.Module):
        raise NotApplicable("give critic=, the module that values every action")
    return case.critic


@torch.no_grad()
def _values(case: LossCase, batch: TensorDictBase) -> Tensor:
    values = _critic(case)(batch.clone()).get(case.names["action_value"], None)
    if not isinstance(values, Tensor):
        raise NotApplicable(f"the critic writes no {case.names['action_value']}")
    return values


def _policy_gradient(case: LossCase, change: Callable[[Tensor], Tensor]) -> Tensor:
    """The gradient of the actor's losses by its parameters, with the critic's values changed."""
    parameters = list(case.actor_parameters().values())
    with _changed_values(case, change):
        total = case.total(case.batch, case.actor_losses)
    return _flat(gradients(total, parameters), parameters)


def _flat(found: list[Tensor | None], parameters: list[Tensor]) -> Tensor:
    parts = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
    return torch.cat([part.flatten() for part in parts]).double()


@contextmanager
def _changed_values(case: LossCase, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside the block the critic gives changed values."""
    key = case.names["action_value"]

    def hook(_: nn.Module, __: object, result: object) -> None:
        if isinstance(result, TensorDictBase) and isinstance(value := result.get(key, None), Tensor):
            result.set(key, change(value))

    handle = _critic(case).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
