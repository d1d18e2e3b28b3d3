"""Fresh initial states of a VMAS simulation, drawn in one go and handed out one by one."""

from __future__ import annotations

from typing import cast

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from ctde_kit.envs.vmas.simulation import VmasSimulation
from ctde_kit.envs.vmas.tensor_state import TensorState
from ctde_kit.envs.vmas.world_state import has_rows


def draw_initial_states(simulation: VmasSimulation, state: TensorState, count: int) -> TensorDict:
    """At least ``count`` states ``[m * n_envs]`` of VMAS's own full resets; only the random stream is moved on."""
    n_envs = simulation.batch_size[0]
    # A reset may write into the tensors that it finds.
    saved = state.read().clone()
    blocks = []
    for _ in range(-(-count // n_envs)):
        simulation.reset()
        rows = {key: value.clone() for key, value in state.read().items(True, True) if has_rows(value, n_envs)}
        block = TensorDict({}, [n_envs], device=simulation.device)
        for key, value in rows.items():
            block.set(key, value)
        blocks.append(block)
    state.write(saved)
    return cast(TensorDict, torch.cat(blocks))


def take_initial_states(state: TensorState, mask: Tensor, fresh: TensorDictBase) -> None:
    """Where ``mask`` ``[n_envs]`` is true, the simulation goes on from the row of ``fresh`` ``[n_envs]``."""
    merged = state.read()
    for key, new in fresh.items(True, True):
        old = merged.get(key)
        merged.set(key, torch.where(mask.reshape(-1, *[1] * (new.ndim - 1)), new, old))
    state.write(merged)
