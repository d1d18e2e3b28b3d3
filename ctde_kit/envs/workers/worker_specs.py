"""The TorchRL specs of a worker env."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from torchrl.data import Bounded, Categorical, Composite, MultiCategorical, TensorSpec, Unbounded

from ctde_kit.envs.workers.block_layout import INFO, BlockLayout, GroupLayout
from ctde_kit.keys import DONE, STATE, TERMINATED, TRUNCATED, GroupKeys


def action_specs(layout: BlockLayout) -> Composite:
    """``(group, "action")``, ``[n_envs, n_agents, ...]``: int64 where discrete, else as the agents' Box has it."""
    return _by_group(layout, {group.name: {"action": _action_spec(layout, group)} for group in layout.groups})


def _action_spec(layout: BlockLayout, group: GroupLayout) -> TensorSpec:
    spaces = [agent.action_space for agent in group.agents.values()]
    first, shape = spaces[0], torch.Size((layout.n_envs, len(spaces), *group.first.action_shape))
    if isinstance(first, Box):
        bounds = [space for space in spaces if isinstance(space, Box)]
        low = torch.as_tensor(np.stack([space.low.ravel() for space in bounds]))
        high = torch.as_tensor(np.stack([space.high.ravel() for space in bounds]))
        if low.isinf().all() and high.isinf().all():
            return Unbounded(shape, dtype=low.dtype)
        return Bounded(low.expand(shape).clone(), high.expand(shape).clone(), shape, dtype=low.dtype)
    if isinstance(first, MultiDiscrete):
        return MultiCategorical(list(group.first.n_choices), shape=shape)
    return Categorical(int(cast(Discrete, first).n), shape=shape)


def observation_specs(layout: BlockLayout) -> Composite:
    """Observations, states and infos (float32, unbounded), masks and action masks (bool)."""
    groups: dict[str, dict[str, TensorSpec]] = {}
    for group in layout.groups:
        keys, fields = GroupKeys(group.name), group.read(layout.n_envs)
        groups[group.name] = {"observation": _number(fields[keys.observation][0])}
        for key in (keys.mask, keys.action_mask):
            if key in fields:
                groups[group.name][key[-1]] = _flag(fields[key][0])
        batch = layout.n_envs, len(group.agents)
        if layout.infos:
            groups[group.name][INFO] = Composite({name: _number((*batch, 1)) for name in layout.infos}, shape=batch)
    specs = _by_group(layout, groups)
    if layout.state_shape is not None:
        specs[STATE] = _number((layout.n_envs, *layout.state_shape))
    return specs


def reward_specs(layout: BlockLayout) -> Composite:
    """``(group, "reward")``, ``[n_envs, n_agents, 1]`` float32."""
    shapes = {group.name: (layout.n_envs, len(group.agents), 1) for group in layout.groups}
    return _by_group(layout, {name: {"reward": _number(shape)} for name, shape in shapes.items()})


def done_specs(layout: BlockLayout) -> Composite:
    """``done``, ``terminated``, ``truncated``: the team's ``[n_envs, 1]``, its agents' ``[n_envs, n_agents, 1]``."""
    names = (DONE, TERMINATED, TRUNCATED)
    shapes = {group.name: (layout.n_envs, len(group.agents), 1) for group in layout.groups}
    specs = _by_group(layout, {group: {name: _flag(shape) for name in names} for group, shape in shapes.items()})
    for name in names:
        specs[name] = _flag((layout.n_envs, 1))
    return specs


def _number(shape: tuple[int, ...]) -> TensorSpec:
    return Unbounded(torch.Size(shape), dtype=torch.float32)


def _flag(shape: tuple[int, ...]) -> TensorSpec:
    return Categorical(2, shape=torch.Size(shape), dtype=torch.bool)


def _by_group(layout: BlockLayout, groups: dict[str, dict[str, TensorSpec]]) -> Composite:
    specs = Composite(shape=(layout.n_envs,))
    for group in layout.groups:
        specs[group.name] = Composite(groups[group.name], shape=(layout.n_envs, len(group.agents)))
    return specs
