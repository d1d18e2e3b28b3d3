"""A partial reset of a batch of VMAS worlds in one go."""

from __future__ import annotations

from collections.abc import Callable

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from vmas.simulator.environment import Environment

from ctde_kit.envs.vmas.world_state import WorldState, has_rows


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
    """
    n_envs = world.num_envs
    before = WorldState.read(world)
    before_values = {path: value.clone() for path, value in before.values.items()}
    world._reset(return_observations=False)
    output = observe()
    after = WorldState.read(world)
    obstacles = before.changed_python(after)
    obstacles += [
        path for path, value in after.values.items() if not _is_batched(before.values.get(path), value, n_envs)
    ]
    if obstacles:
        before.restore_python()
        for path, slot in before.tensors.items():
            slot.set(before_values[path])
        return None, obstacles
    merged: dict[tuple[int, int], Tensor] = {}
    for path, slot in after.tensors.items():
        old, new = before.values[path], after.values[path]
        if not has_rows(new, n_envs) or (new is old and torch.equal(new, before_values[path])):
            continue
        kept = merged.get((id(old), id(new)))
        if kept is None:
            kept = _where(mask, new, before_values[path])
            merged[id(old), id(new)] = kept
        slot.set(kept)
    return output.apply(lambda new, old: _where(mask, new, old), last), []


def _is_batched(old: Tensor | None, new: Tensor, n_envs: int) -> bool:
    """Whether a slot either did not change or has one row per env."""
    if old is None or old.shape != new.shape:
        return False
    return old is new or has_rows(new, n_envs) or torch.equal(old, new)


def _where(mask: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(mask.reshape(-1, *[1] * (new.ndim - 1)), new, old)
