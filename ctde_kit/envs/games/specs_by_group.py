"""Specs that the games have in common."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torchrl.data import Categorical, Composite, TensorSpec

from ctde_kit.keys import DONE, TERMINATED, TRUNCATED


def specs_by_group(name: str, specs: Mapping[str, TensorSpec]) -> Composite:
    """``(group, name)`` for each group's spec of shape ``[n_envs, n_agents, ...]``.

    >>> specs_by_group("action", {"agents": Categorical(4, shape=torch.Size([3, 2]))})["agents", "action"].shape
    torch.Size([3, 2])
    """
    groups = {group: Composite({name: spec}, shape=spec.shape[:2]) for group, spec in specs.items()}
    return Composite(groups, shape=next(iter(specs.values())).shape[:1])


def done_specs(n_envs: int) -> Composite:
    """``done``, ``terminated`` and ``truncated`` of the team, bool ``[n_envs, 1]``."""
    flag = Categorical(2, shape=torch.Size((n_envs, 1)), dtype=torch.bool)
    return Composite({DONE: flag, TERMINATED: flag.clone(), TRUNCATED: flag.clone()}, shape=torch.Size((n_envs,)))
