"""Rows that the entry tables of several losses share: what modules read, and what envs and replays write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModuleBase
from tensordict.utils import NestedKey

from ctde_kit.entry_tables import Entry, GroupEntries, as_key, one_per_step, root_entry, unknown_entry
from ctde_kit.keys import DONE, IS_INIT, LATENT, NEXT, TERMINATED, GroupKeys, Key, next_key
from ctde_kit.objectives.orders import order_keys
from ctde_kit.objectives.unroll import hidden_key
from ctde_kit.protocols import DeclaresEntries, HasGroup
from ctde_kit.specs import GroupSpec


class ReadsKeys(Protocol):
    """A module that says which keys it reads."""

    @property
    def in_keys(self) -> Sequence[NestedKey]:
        """The keys that it reads."""
        ...


def entries_read_by(module: ReadsKeys, groups: Iterable[GroupSpec] = ()) -> list[Entry]:
    """The entries at a module's ``in_keys``: as it declares them, else as the groups' specs say; else any entry.

    Orders that a critic asks for may be missing: losses draw them.
    """
    known = {key: entry for group in groups for key, entry in GroupEntries.of(group).by_key().items()}
    if isinstance(module, DeclaresEntries):
        known |= {entry.key: entry for entry in module.in_entries}
    drawn, keys = order_keys(module), [as_key(key) for key in module.in_keys]
    entries = [known.get(key) or unknown_entry(key) for key in keys]
    return [entry.if_present() if entry.key in drawn else entry for entry in entries]


def group_as_declared(module: TensorDictModuleBase, keys: GroupKeys) -> GroupEntries:
    """The entries of a group whose spec is not known; the number of agents is what ``module`` declares."""
    entries = module.in_entries if isinstance(module, DeclaresEntries) else ()
    known = (dict(entry.named_sizes).get("n_agents") for entry in entries if entry.group == keys.group)
    return GroupEntries(keys, n_agents=next((size for size in known if size is not None), None))


def now_and_next(
    module: TensorDictModuleBase, groups: Iterable[GroupSpec] = (), without: Sequence[Key] = ()
) -> list[Entry]:
    """What a module reads at the root and under ``next``; at the root alone ``is_init``, hidden states and a latent.

    A team's latent, without which networks read its mean, must be there. Masks of living agents may be missing under
    ``next``. Entries at the keys ``without``, which the loss writes itself, are left out.
    """
    entries = [entry for entry in entries_read_by(module, groups) if entry.key not in without]
    entries = [
        replace(e, optional=False, advice="store what TeamLatent drew") if e.key == LATENT else e for e in entries
    ]
    at_root = (hidden_key(module), IS_INIT, LATENT)
    following = [entry.next() for entry in entries if entry.key not in at_root]
    return [*entries, *(entry.if_present() if entry.is_next_mask else entry for entry in following)]


def masks_of(group: GroupSpec) -> list[Entry]:
    """The masks of a group's living agents, before and after the step; the latter may be missing. Empty if none die."""
    mask = GroupEntries.of(group).mask
    return [mask, mask.next().if_present()] if group.mask else []


def team_flags() -> list[Entry]:
    """``done`` and ``terminated`` of the whole team, under ``next``."""
    return [root_entry((NEXT, flag), "bool", "the env must write it") for flag in (DONE, TERMINATED)]


def replay_entries(padding_mask: NestedKey, priority_weight: NestedKey) -> list[Entry]:
    """What replays and samplers may add to a batch, and ``is_init``, which says where episodes begin."""
    return [
        one_per_step(as_key(padding_mask), "bool"),
        one_per_step(as_key(priority_weight), "any float"),
        root_entry(IS_INIT, "bool").if_present(),
    ]


def team_reward(key: NestedKey) -> Entry:
    """The reward of the whole team, under ``next``."""
    return root_entry(next_key(as_key(key)), "float", "TeamReward writes it")


def needed_keys(entries: Iterable[Entry]) -> list[NestedKey]:
    """The keys that give a loss all that it learns from: the required ones, and who is alive after the step."""
    return [entry.key for entry in entries if not entry.optional or entry.is_next_mask]


def stored_keys(in_keys: Iterable[NestedKey], groups: Iterable[GroupSpec]) -> list[NestedKey]:
    """What a replay must keep: ``in_keys``, the agents' own ``done`` and ``terminated``, and ``is_init``."""
    ends = [entry.key for group in groups for entry in GroupEntries.of(group).ends]
    return list(dict.fromkeys([*in_keys, *ends, IS_INIT]))


def keys_of(actor: ProbabilisticTensorDictSequential) -> GroupKeys:
    """The keys of the actor's group; for one that knows none, of the one group whose action it writes, or TorchRL's."""
    if isinstance(actor, HasGroup):
        return actor.group.keys
    groups = [str(key[0]) for key in actor.out_keys if key[1:] == ("action",)]
    return GroupKeys(*groups) if len(groups) == 1 else GroupKeys()
