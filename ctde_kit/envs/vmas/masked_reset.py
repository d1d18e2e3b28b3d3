"""A partial reset of a VMAS env in one batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from ctde_kit.envs.vmas.world_state import WorldState

if TYPE_CHECKING:
    from ctde_kit.envs.vmas.env import VmasEnv


def masked_reset(env: VmasEnv, mask: Tensor, last: TensorDictBase) -> tuple[TensorDict | None, list[str]]:
    """Reset all, then keep the new state where ``mask`` ``[n_envs]`` is true.

    Returns what the agents see then (``last`` where nothing was reset), or ``None``, with nothing changed, and the
    paths of what stands in the way.
    """
    n_envs = env.batch_size[0]
    before = WorldState.read(env.world)
    before_values = {path: value.clone() for path, value in before.values.items()}
    env.world._reset(return_observations=False)
    output = env.observe()
    after = WorldState.read(env.world)
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
        if not _has_rows(new, n_envs) or (new is old and torch.equal(new, before_values[path])):
            continue
        kept = merged.get((id(old), id(new)))
        if kept is None:
            kept = _where(mask, new, before_values[path])
            merged[id(old), id(new)] = kept
        slot.set(kept)
    return output.apply(lambda new, old: _where(mask, new, old), last), []


def _is_batched(old: Tensor | None, new: Tensor, n_envs: int) -> bool:
    """Whether a slot either did not change or has one row an env."""
    if old is None or old.shape != new.shape:
        return False
    return old is new or _has_rows(new, n_envs) or torch.equal(old, new)


def _has_rows(value: Tensor, n_envs: int) -> bool:
    return value.ndim > 0 and value.shape[0] == n_envs


def _where(mask: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(mask.reshape(-1, *[1] * (new.ndim - 1)), new, old)
