"""A partial reset of a batch of VMAS worlds in one go."""

from __future__ import annotations

from collections.abc import Callable

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from vmas.simulator.environment import Environment

from ctde_kit.envs.vmas.tensor_copies import copies_of, each_number_once, overlapping
from ctde_kit.envs.vmas.world_memory import WorldMemory
from ctde_kit.envs.vmas.world_state import WorldState, has_rows, same_numbers


def masked_reset(
    world: Environment, observe: Callable[[], TensorDict], mask: Tensor, last: TensorDictBase
) -> tuple[TensorDict | None, list[str]]:
    """Reset all worlds, then keep the new state where ``mask`` ``[n_envs]`` is true.

    Args:
        world: VMAS's environment.
        observe: what the agents see at the moment of the call; it may write into the world.
        mask: bool ``[n_envs]``, the worlds that are reset.
        last: what the agents saw last, which stays where the mask is false.

    Returns:
        What the agents see after the reset, and an empty list. Where a reset changes state that the whole batch shares:
        ``None`` and the paths of that state, and nothing is changed.

    Raises:
        Exception: what the scenario raises; nothing is changed then.
    """
    n_envs = world.num_envs
    before = WorldState.read(world)
    if before.unreadable():
        return None, before.unreadable()
    memory = WorldMemory(before)
    try:
        world._reset(return_observations=False)
        output = observe()
    except BaseException:
        memory.put_back()
        raise
    after = WorldState.read(world)
    obstacles = [*before.changed_python(after), *sorted(before.values.keys() - after.values.keys())]
    obstacles += [path for path in after.values if not _is_batched(before, after, memory, path, n_envs)]
    if obstacles:
        memory.put_back()
        return None, obstacles
    _keep_other_rows(before, after, memory, mask)
    return output.apply(lambda new, old: _where(mask, new, old), last), []


@torch.no_grad()
def _keep_other_rows(before: WorldState, after: WorldState, memory: WorldMemory, mask: Tensor) -> None:
    """Write what the tensors held before into the rows where ``mask`` is false."""
    # By the tensors before and after: what the reset changed, and what is to be in its place.
    merged: dict[tuple[int, int], Tensor] = {}
    for path, new in after.values.items():
        old = before.values[path]
        if has_rows(new, len(mask)) and not (new is old and same_numbers(new, memory.value(path))):
            merged[id(old), id(new)] = _where(mask, new, memory.value(path))
    views = _views(before, after, merged)
    for path, slot in after.tensors.items():
        old, new = before.values[path], after.values[path]
        kept = merged.get((id(old), id(new)))
        if kept is None:
            continue
        # What the reset changed in place stays the same tensor, under all its names.
        target = views.get(id(new), new if new is old else kept)
        if target is not kept:
            each_number_once(target, like=target).copy_(each_number_once(kept, like=target))
        slot.set(target)


def _views(before: WorldState, after: WorldState, merged: dict[tuple[int, int], Tensor]) -> dict[int, Tensor]:
    """By the tensors that share memory, those to write to, where all can hold what they are to hold and share it."""
    kept_tensors = {id(value) for value in before.values.values()}
    tensors = {id(value): value for value in after.values.values()}
    wanted: dict[int, Tensor] = {}
    several: set[int] = set()
    for (_, key), kept in merged.items():
        several |= {key} & wanted.keys()
        wanted[key] = kept
    found: dict[int, Tensor] = {}
    for group in overlapping(tensors):
        if len(group) < 2 or several.intersection(group):
            continue
        trial = copies_of(tensors[key] for key in group)
        hold = {key: wanted.get(key, tensors[key]) for key in group}
        for key, numbers in hold.items():
            each_number_once(trial[key], like=tensors[key]).copy_(each_number_once(numbers, like=tensors[key]))
        if all(same_numbers(trial[key], numbers) for key, numbers in hold.items()):
            # The memory of tensors that are all new may be somebody else's.
            is_old = not kept_tensors.isdisjoint(group)
            found |= {key: tensors[key] if is_old else trial[key] for key in group}
    return found


def _is_batched(before: WorldState, after: WorldState, memory: WorldMemory, path: str, n_envs: int) -> bool:
    """Whether a slot either holds what it held before or has one row per env."""
    new = after.values[path]
    if path not in before.values or memory.value(path).shape != new.shape:
        return False
    # An expanded first dimension is one value for all envs.
    return (has_rows(new, n_envs) and new.stride(0) != 0) or same_numbers(memory.value(path), new)


def _where(mask: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(mask.reshape(-1, *[1] * (new.ndim - 1)), new, old)
