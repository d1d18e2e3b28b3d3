"""Where a foreign pipeline keeps its entries: TorchRL's names under a group, or the caller's own."""

from __future__ import annotations

from collections.abc import Mapping

from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor

from ctde_kit.errors import UserError
from ctde_kit.keys import DONE, NEXT, PADDING_MASK, STATE, TERMINATED, TRUNCATED
from ctde_kit.testing.findings import NotApplicable

IN_THE_GROUP = {
    "observation": "observation",
    "action": "action",
    "action_mask": "action_mask",
    "mask": "mask",
    "sample_log_prob": "action_log_prob",
    "advantage": "advantage",
    "value_target": "value_target",
    "value": "state_value",
    "state_action_value": "state_action_value",
    "action_value": "action_value",
    "chosen_action_value": "chosen_action_value",
    "reward": "reward",
}
AT_THE_ROOT: dict[str, NestedKey] = {"state": STATE, "padding_mask": PADDING_MASK}
FLAGS = (DONE, TERMINATED, TRUNCATED)
Keys = Mapping[str, NestedKey]


class EntryNames:
    """The keys of a pipeline's entries, by TorchRL's names for them.

    Args:
        group: the agents' group; ``None`` for a single agent, whose entries are at the root.
        keys: entries that stand elsewhere than at ``(group, name)``.
    """

    def __init__(self, group: str | None, keys: Keys | None):
        self.group = group
        self._keys: dict[str, NestedKey] = {
            name: entry if group is None else (group, entry) for name, entry in IN_THE_GROUP.items()
        }
        self._keys |= AT_THE_ROOT
        unknown = [name for name in keys or {} if name not in self._keys]
        if unknown:
            raise UserError(f"keys[{unknown[0]!r}]: expected some of {', '.join(self._keys)}")
        self._keys |= keys or {}

    def __getitem__(self, name: str) -> NestedKey:
        return self._keys[name]

    def next(self, name: str) -> tuple[str, ...]:
        """The key of the entry one step later."""
        return under_next(self[name])

    def agent_axis(self, batch: TensorDictBase) -> int | None:
        """Which dimension of an entry is the agents'; ``None`` for a single agent."""
        return None if self.group is None else batch.ndim

    def several_agents(self, batch: TensorDictBase) -> int:
        """How many agents the group has; a single agent skips the rule."""
        if self.group is None:
            raise NotApplicable("a single agent")
        count = batch.get(self["action"]).shape[batch.ndim]
        if count < 2:
            raise NotApplicable("a group of one agent")
        return count

    def has_agents(self, key: NestedKey) -> bool:
        """Whether an entry is the group's, at the root or under ``next``."""
        return self.group is not None and self.group in as_tuple(key)[:-1]


def as_tuple(key: NestedKey) -> tuple[str, ...]:
    """A key as a tuple of strings."""
    return (key,) if isinstance(key, str) else tuple(map(str, key))


def under_next(key: NestedKey) -> tuple[str, ...]:
    """The same entry one step later."""
    return (NEXT, *as_tuple(key))


def leaves(batch: TensorDictBase) -> dict[tuple[str, ...], Tensor]:
    """All tensors of a batch by key."""
    return {as_tuple(key): value for key, value in batch.items(True, True) if isinstance(value, Tensor)}
