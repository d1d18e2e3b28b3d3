"""Fresh initial states, drawn in one go and handed out one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from ctde_kit.envs.vmas.tensor_state import TensorState

if TYPE_CHECKING:
    from ctde_kit.envs.vmas.env import VmasEnv


def draw_initial_states(env: VmasEnv, state: TensorState, count: int) -> TensorDict:
    """At least ``count`` states that VMAS's own full resets give, ``[m * n_envs]``; the env is left as it was."""
    n_envs = env.batch_size[0]
    saved = state.read()
    # A reset may write into the tensors that it finds.
    saved = saved.clone()
    blocks = []
    for _ in range(-(-count // n_envs)):
        env._reset()
        drawn = state.read()
        rows = {key: value.clone() for key, value in drawn.items(True, True) if _has_rows(value, n_envs)}
        block = TensorDict({}, [n_envs], device=env.device)
        for key, value in rows.items():
            block.set(key, value)
        blocks.append(block)
    state.write(saved)
    return torch.cat(blocks)  # type: ignore[return-value]


def take_initial_states(state: TensorState, mask: Tensor, fresh: TensorDictBase) -> None:
    """Where ``mask`` ``[n_envs]`` is true, the env goes on from the row of ``fresh`` ``[n_envs]``."""
    merged = state.read()
    for key, new in fresh.items(True, True):
        old = merged.get(key)
        merged.set(key, torch.where(mask.reshape(-1, *[1] * (new.ndim - 1)), new, old))
    state.write(merged)


def _has_rows(value: Tensor, n_envs: int) -> bool:
    return value.ndim > 0 and value.shape[0] == n_envs
