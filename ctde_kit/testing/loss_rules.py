"""What every loss must do: ignore dead agents and padding, refuse to broadcast, keep gradients where they belong."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from tensordict import TensorDictBase
from torch import Tensor

from ctde_kit.keys import IS_INIT, NEXT
from ctde_kit.testing.comparing import difference, garbage_like, gradients, moved, number, size
from ctde_kit.testing.entry_names import FLAGS, as_tuple, leaves
from ctde_kit.testing.findings import NotApplicable, Violation, rule
from ctde_kit.testing.loss_case import LossCase, unchanged

MASKS = ("mask", "action_mask", IS_INIT)


@rule("A dead agent's entries are whatever the env left there; in a mean or a statistic they move the living's values.")
def dead_agents_change_nothing(case: LossCase) -> str:
    """Other entries of dead agents leave losses, gradients and the living's advantages as they are."""
    mask = case.batch.get(case.names["mask"], None)
    if mask is None or case.names.group is None:
        raise NotApplicable(f"the batch has no {case.names['mask']!r}: nobody dies")
    if mask.all():
        raise NotApplicable("nobody is dead in the batch")
    count = _changes_nothing(case, case.batch, list(_dead_entries(case, case.batch)), "dead agents'")
    _living_advantages(case)
    return f"{int((~mask).sum())} dead entries of {mask.numel()}; {count} keys changed nothing"


def _dead_entries(case: LossCase, batch: TensorDictBase) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    """Keys of what dead agents have, and where they are dead."""
    dead = ~batch.get(case.names["mask"])
    next_mask = batch.get(case.names.next("mask"), None)
    gone = dead if next_mask is None else dead & ~next_mask
    for key, value in leaves(batch).items():
        skipped = key[-1] in (*MASKS, *FLAGS) or key[-1].endswith("_hidden")
        if skipped or not case.names.has_agents(key) or value.shape[: dead.ndim] != dead.shape:
            continue
        yield key, gone if key[0] == NEXT and key[-1] != "reward" else dead


def _changes_nothing(
    case: LossCase, batch: TensorDictBase, entries: list[tuple[tuple[str, ...], Tensor]], whose: str
) -> int:
    before = _losses_and_gradients(case, batch)
    # All entries at once, since usually none moves anything; which one does is looked for only where something moves.
    together = _moved_by(case, batch, entries, before)
    if together is None:
        return len(entries)
    for entry in entries:
        found = _moved_by(case, batch, [entry], before)
        if found is not None:
            raise Violation(f"{found} with {whose} {entry[0]}, expected 0")
    raise Violation(f"{together} with all {whose} entries together, expected 0")


def _moved_by(
    case: LossCase,
    batch: TensorDictBase,
    entries: list[tuple[tuple[str, ...], Tensor]],
    before: tuple[dict[str, Tensor], dict[str, Tensor]],
) -> str | None:
    """Which loss or gradient moves with other values of these entries, and by how much; ``None`` where none does."""
    changed = batch.clone()
    for key, where in entries:
        value = changed.get(key)
        value[where] = garbage_like(value)[where]
    after = _losses_and_gradients(case, changed)
    for kind, old, new in zip(("", "the gradient of "), before, after, strict=True):
        for name, value in old.items():
            gap = difference(value, new[name])
            if gap > 1e-5 * (1 + size(value)):
                return f"{kind}{name} moves by {number(gap)}"
    return None


def _losses_and_gradients(case: LossCase, batch: TensorDictBase) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    found = case(batch)
    total = torch.stack([value.sum() for name, value in found.items() if name.startswith("loss")]).sum()
    grads = zip(case.learned.items(), gradients(total, case.learned.values()), strict=True)
    found = {name: value.detach() for name, value in found.items()}
    return found, {name: torch.zeros_like(p) if g is None else g for (name, p), g in grads}


def _living_advantages(case: LossCase) -> None:
    if case.prepared is None or case.fresh is None:
        return
    fresh, written = case.fresh.clone(), []
    mask = fresh.get(case.names["mask"])
    for _ in range(2):
        with torch.no_grad(), unchanged(case.prepared):
            written.append(case.prepared(fresh.clone()))
        for key, where in list(_dead_entries(case, fresh)):
            fresh.get(key)[where] = garbage_like(fresh.get(key))[where]
    for name in ("advantage", "value_target"):
        before, after = (data.get(case.names[name], None) for data in written)
        if before is not None:
            gap = difference(before[mask], after[mask])
            if gap > 1e-4 * (1 + float(before.abs().max())):
                raise Violation(f"the living's {name} moves by {number(gap)} with dead agents' entries, expected 0")


@rule("Episodes are padded to one length; a step that never was must not be learned from, nor end a trace.")
def padding_changes_nothing(case: LossCase) -> str:
    """Other entries in padded steps leave losses and gradients as they are."""
    key = case.names["padding_mask"]
    valid = case.batch.get(key, None)
    if valid is None:
        raise NotApplicable(f"the batch has no {key!r}: nothing is padded")
    if valid.all():
        raise NotApplicable("no step of the batch is padded")
    entries = [
        (name, ~valid)
        for name, value in leaves(case.batch).items()
        if name[-1] not in MASKS and name != as_tuple(key) and value.shape[: valid.ndim] == valid.shape
    ]
    count = _changes_nothing(case, case.batch, entries, "padded steps'")
    return f"{int((~valid).sum())} of {valid.numel()} steps; {count} keys changed nothing"


@rule("[B, 1] beside [B, n, 1] can broadcast without a word: every agent then learns from other agents' numbers.")
def no_silent_broadcast(case: LossCase) -> str:
    """An entry of another shape is refused, or means what it says: one number per step is each agent's."""
    tried = refused = 0
    expected = case.total(case.batch).detach()
    for name in ("advantage", "value_target", "sample_log_prob", "reward"):
        key = case.names.next(name) if name == "reward" else as_tuple(case.names[name])
        if not _is_read(case, key, expected):
            continue
        for wrong, meant in _other_shapes(case, case.batch.get(key)):
            tried += 1
            try:
                found = case.total(_with_shape(case.batch, key, wrong)).detach()
            except Exception:  # however it refuses
                refused += 1
                continue
            target = expected if meant is None else case.total(case.batch.clone().set(key, meant)).detach()
            gap = difference(found, target)
            if gap > 1e-5 * (1 + target.abs().item()):
                shapes = f"{list(wrong.shape)} instead of {list(case.batch.get(key).shape)}"
                raise Violation(f"key {key} {shapes} gave a loss without an error, {number(gap)} off: it was broadcast")
    if not tried:
        raise NotApplicable("the loss reads no advantage, value target, log-probability or reward of the batch")
    return f"{refused} of {tried} other shapes are refused, {tried - refused} mean what they say"


def _with_shape(batch: TensorDictBase, key: tuple[str, ...], value: Tensor) -> TensorDictBase:
    """A copy with an entry of any shape; a group with agents in its batch size would refuse it before the loss does."""
    changed = batch.clone()
    for depth in range(1, len(key)):
        changed.get(key[:depth]).batch_size = batch.batch_size
    return changed.set(key, value)


def _is_read(case: LossCase, key: tuple[str, ...], expected: Tensor) -> bool:
    value = case.batch.get(key, None)
    if value is None or not value.is_floating_point():
        return False
    return difference(case.total(case.batch.clone().set(key, moved(value))), expected) > 0


def _other_shapes(case: LossCase, value: Tensor) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The entry in another shape, and what it means: ``None`` for the same as before."""
    batch, axis = case.batch.ndim, case.names.agent_axis(case.batch)
    if value.ndim > batch and value.shape[-1] == 1:
        yield value.squeeze(-1), None
    if axis is not None and value.ndim > axis and value.shape[axis] > 1:
        first = value.narrow(axis, 0, 1)
        meant = first.expand_as(value).clone()
        yield first, meant
        if value.ndim == axis + 2:
            yield first.squeeze(axis), meant


@rule(
    "Where a policy's loss moves the critic, or a value's loss the policy, each learns something else than it should."
)
def gradients_stay_home(case: LossCase) -> str:
    """The actor's losses move the actor alone, the values' losses the critic alone."""
    actor, critic = case.actor_parameters(), case.critic_parameters()
    found = case(case.batch)
    policy = torch.stack([found[name].sum() for name in case.actor_losses if name in found]).sum()
    value = torch.stack([found[name].sum() for name in case.value_losses if name in found]).sum()
    for total, losses, own, other, whose in (
        (policy, case.actor_losses, actor, critic, "critic"),
        (value, case.value_losses, critic, actor, "actor"),
    ):
        strays = dict(zip(other, map(size, gradients(total, other.values())), strict=True))
        name = max(strays, key=lambda key: strays[key])
        if strays[name] > 0:
            raise Violation(
                f"{' + '.join(losses)} moves the {whose}: gradient {number(strays[name])} in {name}, expected 0"
            )
        if not any(size(gradient) > 0 for gradient in gradients(total, own.values())):
            raise Violation(f"{' + '.join(losses)} moves nothing: no gradient in {len(own)} parameters")
    return f"{len(actor)} parameters of the actor, {len(critic)} of the critic, no stray gradient"


@rule("A parameter without a gradient never learns; the network is smaller than it looks.")
def every_parameter_learns(case: LossCase) -> str:
    """Each parameter gets a gradient from the sum of losses, and a finite one."""
    learned = case.learned
    if not learned:
        raise NotApplicable("no parameters are known; give actor= and critic=")
    grads = dict(zip(learned, gradients(case.total(case.batch), learned.values()), strict=True))
    for name, gradient in grads.items():
        if gradient is not None and not gradient.isfinite().all():
            raise Violation(f"the gradient of {name} is not finite")
    idle = [name for name, gradient in grads.items() if size(gradient) == 0]
    if idle:
        raise Violation(f"{len(idle)} of {len(grads)} parameters get no gradient: {', '.join(idle[:4])}")
    return f"{len(grads)} parameters"
