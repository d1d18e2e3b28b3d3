"""A check that the numbers of an environment are finite, before anything learns from them."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from torch import Tensor

from ctde_kit.entry_tables import as_key
from ctde_kit.errors import NotFiniteError
from ctde_kit.keys import NEXT, Key

CHECKED = ("observation", "state", "reward")
"""The last parts of the keys of the entries that are checked, all of which environments write."""


def check_finite(batch: TensorDictBase, frames: int) -> None:
    """Raise ``NotFiniteError`` for an observation, state or reward that is not finite, naming key, group and env.

    Entries of agents whose ``mask`` is false are not checked.

    Args:
        batch: as collected, ``[n_envs, T]``, or one step ``[n_envs]``.
        frames: collected so far, for the error message.
    """
    wrong = {key: _not_finite(batch, key) for key in _checked_keys(batch)}
    # One answer from the device for all entries.
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
        "correct the environment, or its arguments"
    )


def _checked_keys(batch: TensorDictBase) -> list[Key]:
    keys = [as_key(key) for key in batch.keys(include_nested=True, leaves_only=True)]
    # Entries under `next` come last, since they follow from the others: the first that is wrong is named.
    ordered = sorted(keys, key=lambda key: (NEXT in key, str(key)))
    return [key for key in ordered if _last(key) in CHECKED and batch.get(key).is_floating_point()]


def _last(key: Key) -> str:
    return key if isinstance(key, str) else key[-1]


def _not_finite(batch: TensorDictBase, key: Key) -> Tensor:
    entries = ~torch.isfinite(batch.get(key))
    if isinstance(key, str):
        return entries
    # A reward belongs to the agents that were alive before the step.
    before = key[1:-1] if key[0] == NEXT and key[-1] == "reward" else key[:-1]
    alive = batch.get((*before, "mask"), None) if before else None
    return entries if alive is None else entries & alive.reshape(*alive.shape, *[1] * (entries.ndim - alive.ndim))
