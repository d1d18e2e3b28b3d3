"""What Q-learning's targets must be: under masks, finite, detached, from target networks."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from torch import Tensor

from ctde_kit.keys import NEXT
from ctde_kit.specs import one_hot
from ctde_kit.testing.comparing import difference, gradients, moved, number, size
from ctde_kit.testing.entry_names import leaves
from ctde_kit.testing.findings import NotApplicable, Violation, rule
from ctde_kit.testing.loss_case import LossCase

BUMP, HUGE = 10.0, 1e6


@rule("A target that takes a forbidden action's value is of a policy that cannot be played, and usually too large.")
def masks_in_targets(case: LossCase) -> str:
    """Which next actions are allowed changes the target."""
    base = case.running(case.batch)
    key, mask = _next_mask(case, base)
    with torch.no_grad():
        free = case.value_total(base.clone().set(key, torch.ones_like(mask)))
        gaps = [
            difference(
                free, case.value_total(base.clone().set(key, one_hot(torch.full(mask.shape[:-1], k), mask.shape[-1])))
            )
            for k in range(mask.shape[-1])
        ]
    if max(gaps) <= 1e-6 * (1 + free.abs().item()):
        raise Violation(
            f"{len(gaps)} masks under {key}, each with another action, left the loss at {number(free.item())}"
        )
    return f"{len(gaps)} masks move the loss by up to {number(max(gaps))}"


def _next_mask(case: LossCase, batch: TensorDictBase) -> tuple[tuple[str, ...], Tensor]:
    key = case.names.next("action_mask")
    mask = batch.get(key, None)
    if mask is None:
        raise NotApplicable(f"the batch has no {key}")
    return key, mask


@rule("The value -inf, or the least float, of an agent that may do nothing spoils the team's value and every gradient.")
def all_masked_agent_is_finite(case: LossCase) -> str:
    """An agent without an allowed action leaves the loss and its gradient finite, and of ordinary size."""
    base = case.running(case.batch)
    key, _ = _next_mask(case, base)
    changed = base.clone()
    for entry in (key, key[1:]):
        value = changed.get(entry, None)
        if value is not None:
            value.select(case.batch.ndim, 0).fill_(False)
    before, total = case.value_total(base), case.value_total(changed)
    if not total.isfinite() or total.abs() > HUGE * (1 + before.abs()):
        raise Violation(
            f"the loss is {number(total.item())} where agent 0 may do nothing, {number(before.item())} before"
        )
    grads = gradients(total, case.learned.values())
    worst = max((size(g) if g is None or g.isfinite().all() else float("inf") for g in grads), default=0.0)
    if worst == float("inf") or (case.learned and worst == 0):
        raise Violation(f"the gradient is {number(worst)} where agent 0 may do nothing, expected a finite one")
    return f"loss {number(total.item())}, largest gradient {number(worst)}"


@rule("A gradient through the target moves it toward the value: the error gets small, and values stay wrong.")
def target_is_detached(case: LossCase) -> str:
    """The target's values give no parameter a gradient, and no target network learns."""
    learning = [name for name in case.learned if "target" in name]
    if learning:
        raise Violation(f"{len(learning)} parameters of target networks learn, such as {learning[0]}")
    base = case.running(case.batch)
    one = one_step(base)
    seen = [(NEXT, *key) for key in case.seen(one)]
    for key in seen:
        one.set(key, one.get(key).clone().requires_grad_())
    reached = gradients(case.value_total(one), [one.get(key) for key in seen])
    if not any(size(gradient) > 0 for gradient in reached):
        return f"{len(seen)} entries under 'next' get no gradient"
    if not case.learned:
        raise NotApplicable("no parameters are known; give networks=")
    share = _share_beside_values(case, one.detach())
    if share > 0.02:
        raise Violation(
            f"{number(100 * share)} % of the gradient's change with 'next' goes through the target: it is not detached"
        )
    return "gradients reach entries under 'next', and go through no parameter on the way"


def one_step(batch: TensorDictBase) -> TensorDictBase:
    """The first transition, or the last step of the first sequence."""
    return batch[:1] if batch.ndim == 1 else batch.reshape(-1, batch.shape[-1])[:1, -1:]


def _share_beside_values(case: LossCase, one: TensorDictBase) -> float:
    """The share of the gradient's change with ``next`` that is no weighted sum of the current values' gradients.

    Where targets are detached, one step's gradient is a weighted sum of its values' gradients; what follows, and the
    reward, move the weights alone. So all changes with ``next`` are in the span of changes with rewards.
    """
    gradient = _flat_gradient(case, one)
    basis = []
    for key, value in leaves(one).items():
        if key[0] != NEXT or key[-1] != "reward":
            continue
        for index in range(value.numel()):
            changes = []
            for bump in (0.5, -0.5, 5.0, -5.0, 50.0, -50.0):
                paid = value.clone().flatten()
                paid[index] += bump
                changes.append(_flat_gradient(case, one.clone().set(key, paid.reshape(value.shape))) - gradient)
            basis.append(max(changes, key=lambda change: change.norm().item()))
    columns = torch.stack([change for change in basis if change.norm() > 0], 1)
    place = (0,) * one.ndim
    worst = 0.0
    for _ in range(4):
        change = _flat_gradient(case, case.with_moved(one, place, (NEXT,))) - gradient
        left = change - columns @ torch.linalg.lstsq(columns, change.unsqueeze(1)).solution.squeeze(1)
        if change.norm() > 1e-6 * (1 + gradient.norm()):
            worst = max(worst, (left.norm() / change.norm()).item())
    return worst


def _flat_gradient(case: LossCase, batch: TensorDictBase) -> Tensor:
    learned = case.learned.values()
    grads = gradients(case.value_total(batch), learned)
    parts = [torch.zeros_like(p) if g is None else g for p, g in zip(learned, grads, strict=True)]
    return torch.cat([part.flatten() for part in parts]).double()


@rule("Without target networks the target moves with each update, and values can run away.")
def target_networks_are_used(case: LossCase) -> str:
    """Other weights of the target networks move the loss, where the loss has such."""
    targets = case.targets()
    if not targets:
        raise NotApplicable("the loss holds no state whose name has 'target'")
    gap = _moves_with(case, targets)
    if not gap:
        raise Violation(f"other weights in {len(targets)} tensors of target networks leave the loss as it is")
    return f"moves by {number(gap)} with {len(targets)} tensors of target networks"


def _moves_with(case: LossCase, tensors: dict[str, Tensor]) -> float:
    """How far the value losses move with other weights; they are put back."""
    base = case.running(case.batch)
    kept = {name: value.detach().clone() for name, value in tensors.items()}
    with torch.no_grad():
        before = case.value_total(base)
        try:
            for value in tensors.values():
                value.copy_(moved(value))
            gap = difference(before, case.value_total(base))
        finally:
            for name, value in tensors.items():
                value.copy_(kept[name])
    return gap if gap > 1e-6 * (1 + before.abs().item()) else 0.0


def double_q(case: LossCase) -> str:
    """The online network chooses the next action, the target network values it."""
    values = case.batch.get(case.names["action_value"], None)
    mask = case.batch.get(case.names["action_mask"], None)
    sizes = [entry.shape[-1] for entry in (values, mask) if entry is not None]
    if not sizes:
        raise NotApplicable(f"the batch has no {case.names['action_value']!r}, so the number of actions is not known")
    biases = [
        value
        for name, value in case.targets().items()
        if name.endswith("bias") and value.shape[-1] == sizes[0] and "mixer" not in name
    ]
    if not biases:
        raise NotApplicable("no target network ends with one bias per action")
    counted = _choices_that_count(case, biases[-1])
    n_agents = case.batch.get(case.names["action"]).shape[case.batch.ndim] if case.names.group else 1
    if counted == sizes[0] > n_agents:
        raise Violation(
            f"raising the target network's value of any of {sizes[0]} actions moves the loss: it chooses by itself, "
            "expected the online network's choice"
        )
    if n_agents >= sizes[0]:
        raise NotApplicable(f"{n_agents} agents may choose all {sizes[0]} actions")
    return f"{counted} of {sizes[0]} actions count in the target, those that the online network chooses"


def _choices_that_count(case: LossCase, bias: Tensor) -> int:
    """For how many actions the loss of one step moves with the target network's value of it."""
    base = case.running(case.batch)
    one = one_step(base)
    kept, count = bias.detach().clone(), 0
    with torch.no_grad():
        before = case.value_total(one)
        for choice in range(bias.shape[-1]):
            bias[..., choice] += BUMP
            count += int(difference(before, case.value_total(one)) > 1e-6 * (1 + before.abs().item()))
            bias.copy_(kept)
    return count


WHY_DOUBLE = (
    "A maximum of noisy values is too large; the online network's choice, valued by the target network, is not."
)
demanded_double_q = rule(WHY_DOUBLE)(double_q)
