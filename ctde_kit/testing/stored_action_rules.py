"""Which action the target values: the policy's next one, and not the one stored in the step before."""

from __future__ import annotations

import math

import torch
from tensordict import TensorDictBase

from ctde_kit.keys import NEXT
from ctde_kit.testing.comparing import number
from ctde_kit.testing.findings import NotApplicable, Violation, rule
from ctde_kit.testing.loss_case import LossCase
from ctde_kit.testing.q_learning_rules import one_step

PAID, ITERATIONS = 0.5, 30
# Shares of the target's change with ``next``; what is below is rounding.
SHARE, LEAST = 0.005, 1e-4


@rule(
    "The target values the policy's action at the next observation; the stored action belongs to the state before it."
)
def stored_action_is_not_in_the_target(case: LossCase) -> str:
    """The target, found from the loss alone, moves with ``next`` and not with the action that was taken."""
    base = one_step(case.running(case.batch))
    if not case.seen(base):
        raise NotApplicable("no float entry stands at the root and under 'next'")
    place, action = (0,) * base.ndim, case.names["action"]
    following = case.with_moved(base, place, (NEXT,))
    gaps = [_value_above_target(case, one) for one in (base, following)]
    moves, other = abs(gaps[1] - gaps[0]), _with_other_action(case, base).get(action)
    mixed = _mixed(case, gaps, [one.clone().set(action, other) for one in (base, following)])
    if mixed <= LEAST + SHARE * moves:
        return f"the target moves by {number(mixed)} with the stored action, by {number(moves)} with 'next'"
    elsewhere = case.with_moved(base, place)
    both = elsewhere.clone()
    for key in case.seen(base):
        both.set((NEXT, *key), following.get((NEXT, *key)))
    if _mixed(case, gaps, [elsewhere, both]) > LEAST + SHARE * moves:
        raise NotApplicable("the target moves with the whole step before it: networks remember it")
    raise Violation(
        f"the target moves by {number(mixed)} with the action stored in its own row, beside {number(moves)} with "
        "'next', expected 0: the next value is of the policy's next action"
    )


def _mixed(case: LossCase, gaps: list[float], changed: list[TensorDictBase]) -> float:
    """How much the effect of a change on the gap depends on ``next``: 0 where the change moves the value alone."""
    change = gaps[1] - gaps[0]
    after = _value_above_target(case, changed[0], gaps[0])
    return abs(_value_above_target(case, changed[1], after + change) - after - change)


def _with_other_action(case: LossCase, one: TensorDictBase) -> TensorDictBase:
    """A copy with the actions of another row of the batch."""
    key = case.names["action"]
    mine = one.get(key)
    rows = case.batch.get(key).reshape(-1, *mine.shape[one.ndim :])
    others = rows[(rows != mine.reshape(1, *rows.shape[1:])).reshape(len(rows), -1).any(1)]
    if not len(others):
        raise NotApplicable("all actions of the batch are the same")
    return one.clone().set(key, others[torch.randint(len(others), ())].reshape(mine.shape))


@torch.no_grad()
def _value_above_target(case: LossCase, one: TensorDictBase, shift: float = 0.0) -> float:
    """How much more reward would bring one step's target to its value; there a loss of any form is least.

    The search begins at ``shift``.
    """
    key = case.names.next("reward")
    reward = one.get(key, None)
    if reward is None:
        raise NotApplicable(f"the batch has no {key}")

    def loss(paid: float) -> float:
        changed = reward.clone()
        changed.view(-1)[0] += paid
        return case.value_total(one.clone().set(key, changed)).item()

    low, high = -math.inf, math.inf
    for _ in range(ITERATIONS):
        less, here, more, most = (loss(shift + change) for change in (-PAID, 0.0, PAID, 2 * PAID))
        curve, slope = less + more - 2 * here, less - more
        if not slope and not curve:
            raise NotApplicable(f"the loss does not move with {key}")
        low, high = (max(low, shift - PAID), high) if slope > 0 else (low, min(high, shift + PAID))
        # Newton's step of a parabola; far away, where a loss such as Huber's is a line, Polyak's toward a loss of 0.
        curved = curve > 1e-4 * abs(slope)
        step = PAID * slope / (2 * curve) if curved else 2 * PAID * here / slope
        if not low <= shift + step <= high:
            step = (low + high) / 2 - shift
        shift += step
        is_parabola = curved and abs(most - here + slope - 2 * curve) < 1e-5 * curve
        if abs(step) < LEAST / 10 or (is_parabola and abs(step) < 1):
            return shift
    raise NotApplicable("no reward was found at which the loss is least")
