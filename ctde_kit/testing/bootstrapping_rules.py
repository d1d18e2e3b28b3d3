"""What targets must be: from the next observation, bootstrapped at truncations, cut at terminations."""

from __future__ import annotations

from collections.abc import Callable

import torch
from tensordict import TensorDictBase
from torch import Tensor

from ctde_kit.keys import NEXT
from ctde_kit.testing.comparing import difference, number
from ctde_kit.testing.entry_names import leaves
from ctde_kit.testing.findings import NotApplicable, Violation, rule
from ctde_kit.testing.loss_case import LossCase, unchanged

Place = tuple[int, ...]
WHY_NEXT = "The row after the last one of an episode belongs to another episode; its value is not part of the target."
WHY_TRUNCATED = "A time limit ends the data and not the value: without V(next) all values near the limit are too small."
WHY_TERMINATED = "After a terminal state there is no reward: a value that is bootstrapped there is made up."


def _last(batch: TensorDictBase) -> Place:
    """The last step of the first sequence, or the first transition: it bootstraps, however many steps returns have."""
    return (0,) * (batch.ndim - 1) + (batch.shape[-1] - 1,) if batch.ndim > 1 else (0,)


def _ending(batch: TensorDictBase) -> tuple[Place, Place]:
    """A step that can end an episode, and the row after it."""
    if batch.ndim == 1:
        return (0,), (1,)
    if batch.shape[-1] < 2:
        raise NotApplicable(f"sequences of one step {list(batch.shape)}")
    first = (0,) * (batch.ndim - 1)
    return (*first, batch.shape[-1] - 2), (*first, batch.shape[-1] - 1)


def _check_seen(case: LossCase, batch: TensorDictBase) -> None:
    if not case.seen(batch):
        raise NotApplicable("no float entry stands at the root and under 'next'")


# --- of a loss


def _loss_moves(case: LossCase, base: TensorDictBase, changed: TensorDictBase) -> float:
    """How far the value losses move, relative to their size; what is rounding is 0."""
    with torch.no_grad():
        before, after = case.value_total(base), case.value_total(changed)
    gap = difference(before, after)
    return gap if gap > 1e-6 * (1 + before.abs().item()) else 0.0


@rule(WHY_NEXT)
def target_from_next(case: LossCase) -> str:
    """The target reads ``next``, and never the row after an ending."""
    base = case.running(case.batch)
    _check_seen(case, base)
    moves = _loss_moves(case, base, case.with_moved(base, _last(base), (NEXT,)))
    if not moves:
        raise Violation("the loss does not move with the entries under 'next': the target is not from them")
    place, behind = _ending(base)
    cross = _cross(case, case.ended(base, place, "truncated"), place, behind)
    if cross:
        raise Violation(
            f"the target of an episode's last step moves with the row after it ({number(cross)}), expected 0"
        )
    return f"moves by {number(moves)} with 'next', not with the row after an ending"


def _cross(case: LossCase, base: TensorDictBase, place: Place, behind: Place) -> float:
    """The mixed difference in one step's reward and the next row's observation: 0 where no target has both."""
    paid, seen = _rewarded(base, place), case.with_moved(base, behind)
    with torch.no_grad():
        both = case.value_total(_rewarded(seen, place)) - case.value_total(seen)
        alone = case.value_total(paid) - case.value_total(base)
    gap = difference(both, alone)
    return gap if gap > 1e-5 * (1 + both.abs().item() + case.value_total(base).abs().item()) else 0.0


def _rewarded(batch: TensorDictBase, place: Place) -> TensorDictBase:
    changed = batch.clone()
    for key, value in leaves(changed).items():
        if key[0] == NEXT and key[-1] == "reward":
            value[place] += 1.0
    return changed


@rule(WHY_TRUNCATED)
def truncation_bootstraps(case: LossCase) -> str:
    """The target of a truncated step has the value of its next observation."""
    base = case.running(case.batch)
    _check_seen(case, base)
    place, _ = _ending(base)
    base = case.ended(base, place, "truncated")
    moves = _loss_moves(case, base, case.with_moved(base, place, (NEXT,)))
    if not moves:
        raise Violation("the loss does not move with the next observation of a truncated step: it is not bootstrapped")
    return f"moves by {number(moves)} with a truncated step's next observation"


@rule(WHY_TERMINATED)
def termination_cuts(case: LossCase) -> str:
    """The target of a terminated step is its reward."""
    base = case.running(case.batch)
    _check_seen(case, base)
    place, _ = _ending(base)
    base = case.ended(base, place, "terminated")
    moves = _loss_moves(case, base, case.with_moved(base, place, (NEXT,)))
    if moves:
        raise Violation(f"the loss moves by {number(moves)} with what follows a terminated step, expected 0")
    return "does not move with what follows a terminated step"


# --- of an estimator


def _target(case: LossCase) -> tuple[TensorDictBase, Callable[[TensorDictBase], Tensor]]:
    """The fresh batch, and a function of a batch: the value target that the estimator writes, or else the advantage."""
    if case.prepared is None or case.fresh is None:
        raise NotApplicable("give the estimator that writes advantages and value targets")
    base, prepared = case.running(case.fresh), case.prepared
    if base.ndim < 2 or base.shape[-1] < 3:
        raise NotApplicable(f"the batch {list(base.shape)} has no sequences of three steps [*B, T]")
    _check_seen(case, base)

    def target(batch: TensorDictBase) -> Tensor:
        with torch.no_grad(), unchanged(prepared):
            written = prepared(batch.clone())
        found = written.get(case.names["value_target"], None)
        return written.get(case.names["advantage"]) if found is None else found

    return base, target


def _target_moves(case: LossCase, how: str, prefix: tuple[str, ...], behind: bool) -> float:
    base, target = _target(case)
    place, row = _ending(base)
    base = case.ended(base, place, how)
    changed = case.with_moved(base, row if behind else place, prefix)
    gap = difference(target(base)[place], target(changed)[place])
    return gap if gap > 1e-5 else 0.0


@rule(WHY_NEXT)
def advantage_from_next(case: LossCase) -> str:
    """The value target of an episode's last step never reads the row after it."""
    gap = _target_moves(case, "truncated", (), behind=True)
    if gap:
        raise Violation(f"the value target of an episode's last step moves by {number(gap)} with the row after it")
    return "does not move with the row after an ending"


@rule(WHY_TRUNCATED)
def truncated_advantage_bootstraps(case: LossCase) -> str:
    """The value target of a truncated step has the value of its next observation."""
    gap = _target_moves(case, "truncated", (NEXT,), behind=False)
    if not gap:
        raise Violation(
            "the value target of a truncated step does not move with its next observation: not bootstrapped"
        )
    return f"moves by {number(gap)} with a truncated step's next observation"


@rule(WHY_TERMINATED)
def terminated_advantage_is_cut(case: LossCase) -> str:
    """The value target of a terminated step is its reward."""
    gap = _target_moves(case, "terminated", (NEXT,), behind=False)
    if gap:
        raise Violation(f"the value target of a terminated step moves by {number(gap)} with what follows, expected 0")
    return "does not move with what follows a terminated step"
