"""Parts that are trained, stopped, saved and loaded, and what must be the same then."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ctde_kit.training import Parts, iterate, load_parts, read_checkpoint, save_checkpoint

Build = Callable[[], Parts]
STATEFUL = ("collector", "buffer", "update_schedule", "update", "policy")


def advance(parts: Parts, iterations: int) -> Parts:
    loop = iterate(parts)
    for _ in range(iterations):
        next(loop)
    return parts


def tensors(state: Any) -> list[torch.Tensor]:
    leaves = torch.utils._pytree.tree_leaves(state)
    return [leaf.clone() for leaf in leaves if isinstance(leaf, torch.Tensor)]


def weights(parts: Parts) -> torch.Tensor:
    return torch.cat([value.flatten() for value in tensors(parts.update.losses.state_dict())])


def same(first: Any, second: Any) -> bool:
    leaves = [torch.utils._pytree.tree_leaves(state) for state in (first, second)]
    pairs = zip(*leaves, strict=False)
    alike = all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)
    return alike and len(leaves[0]) == len(leaves[1])


def check_resumed_equals_uninterrupted(build: Build, algorithm: str, path: Path) -> None:
    """Four iterations end with the state of two and two, with a checkpoint of 120 frames between them."""
    uninterrupted, stopped = advance(build(), 4), advance(build(), 2)
    save_checkpoint(path, stopped, algorithm=algorithm, frames=120)
    before = weights(stopped)
    advance(stopped, 1)  # and it goes on writing into its replay
    torch.manual_seed(99)
    random.seed(99)
    np.random.seed(99)
    resumed = advance(build(), 1)
    assert load_parts(read_checkpoint(path, algorithm=algorithm), resumed) == 120
    assert torch.equal(weights(resumed), before)
    resumed.anneal(120)
    advance(resumed, 2)
    assert torch.equal(weights(resumed), weights(uninterrupted))
    assert not torch.equal(weights(resumed), before)
    for part in STATEFUL:
        ours, theirs = getattr(uninterrupted, part), getattr(resumed, part)
        if hasattr(ours, "state_dict"):
            assert same(ours.state_dict(), theirs.state_dict()), part


def check_part_is_restored(build: Build, part: str) -> None:
    """One part's state after two iterations replaces the one that it has after three."""
    source, target = getattr(advance(build(), 2), part), getattr(advance(build(), 3), part)
    saved = source.state_dict()
    assert not same(saved, target.state_dict())
    target.load_state_dict(saved)
    assert same(saved, target.state_dict())
