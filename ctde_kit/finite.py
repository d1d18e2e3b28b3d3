"""What an environment gave is looked at before anything learns from it."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor

from ctde_kit.errors import NotFiniteError
from ctde_kit.keys import NEXT

GIVEN = ("observation", "state", "reward")
"""The last parts of the keys that an environment writes as numbers."""


def check_finite(batch: TensorDictBase, frames: int) -> None:
    """Raise ``NotFiniteError`` for an observation, state or reward that is not finite, naming key, group and env.

    Entries of agents whose ``mask`` is false are nobody's.

    Args:
        batch: as collected, ``[n_envs, T]``, or one step ``[n_envs]``.
        frames: collected so far, for the error message.
    """
    wrong = {key: _not_finite(batch, key) for key in _given(batch)}
    # One answer from the device for all.
    if not wrong or not bool(torch.stack([entries.any() for entries in wrong.values()]).any()):
        return
    key, entries = next((key, entries) for key, entries in wrong.items() if entries.any())
    place = entries.nonzero()[0].tolist()
    path = [key] if isinstance(key, str) else [*key]
    owner = path[-2] if len(path) > 1 and path[-2] != NEXT else None
    whose = "" if owner is None else f" of group {owner!r}"
    value = batch.get(key)[tuple(place)].item()
    raise NotFiniteError(
        f"{_last(key)}{whose} is {value} in env {place[0]} (key {key!r}, at {frames} frames): the environment gave it; "
        "mend the environment, or its arguments"
    )


def _given(batch: TensorDictBase) -> list[str | tuple[str, ...]]:
    keys: list[Any] = list(batch.keys(include_nested=True, leaves_only=True))
    # What follows a step comes after what it was made from: the first that is wrong is named.
    ordered = sorted(keys, key=lambda key: (NEXT in key, str(key)))
    return [key for key in ordered if _last(key) in GIVEN and batch.get(key).is_floating_point()]


def _last(key: Any) -> str:
    return key if isinstance(key, str) else key[-1]


def _not_finite(batch: TensorDictBase, key: str | tuple[str, ...]) -> Tensor:
    entries = ~torch.isfinite(batch.get(key))
    if isinstance(key, str):
        return entries
    before = key[1:-1] if key[0] == NEXT and key[-1] == "reward" else key[:-1]
    alive = batch.get((*before, "mask"), None) if before else None
    return entries if alive is None else entries & alive.reshape(*alive.shape, *[1] * (entries.ndim - alive.ndim))
