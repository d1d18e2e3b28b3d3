"""Values of the chosen actions, per agent or mixed into the team's value, from the values of all actions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor

from ctde_kit.entries import alive_next
from ctde_kit.entry_tables import Entry, GroupEntries
from ctde_kit.keys import NEXT, Key
from ctde_kit.objectives.read_entries import masks_of, now_and_next
from ctde_kit.specs import GroupSpec


class QActor(Protocol):
    """What ``QMixLoss`` uses of a group's actor, such as ``MultiAgentQActor``."""

    @property
    def group(self) -> GroupSpec:
        """The group whose actions it writes."""
        ...

    @property
    def out_keys(self) -> Sequence[NestedKey]:
        """The keys that it writes, ``(group, "action_value")`` among them."""
        ...

    @property
    def agent_network(self) -> TensorDictModuleBase:
        """Writes ``(group, "action_value")`` ``[*B, n_agents, A]``."""
        ...

    def greedy(self, tensordict: TensorDictBase, /) -> Tensor:
        """The index ``[*B, n_agents]`` of each agent's best allowed action, by the values in ``tensordict``."""
        ...

    def index(self, action: Tensor, /) -> Tensor:
        """The indices ``[*B, n_agents]`` of actions in the env's form."""
        ...

    def encode(self, index: Tensor, /) -> Tensor:
        """The actions, in the env's form, of indices ``[*B, n_agents]``."""
        ...


def agent_entries(actor: QActor, groups: Iterable[GroupSpec]) -> list[Entry]:
    """What a loss reads of one group of ``groups``: what its network reads, masks, and the action that was taken."""
    group = GroupEntries.of(actor.group)
    allowed = [group.action_mask, group.action_mask.next()] if actor.group.action_mask else []
    action = replace(group.action, advice="store the action that was taken")
    return [*masks_of(actor.group), *now_and_next(actor.agent_network, groups), *allowed, action]


def written_keys(group: GroupSpec) -> list[Key]:
    """The keys that ``write_values`` writes."""
    keys = group.keys
    return [keys.chosen_action_value, keys.max_action_value, keys.action_value, keys.action]


def stored_choice(actor: QActor, tensordict: TensorDictBase, padding_mask: NestedKey) -> Tensor:
    """The index ``[*B, T, n_agents]`` of the action that each agent took; 0 for dead agents and in padding."""
    group, keys = actor.group, actor.group.keys
    index, valid = actor.index(tensordict.get(keys.action)), tensordict.get(padding_mask, None)
    if valid is not None:
        index = index.masked_fill(~valid.reshape(*tensordict.shape, 1), 0)
    return index.masked_fill(~tensordict.get(keys.mask), 0) if group.mask else index


def at_next(groups: Iterable[GroupSpec], tensordict: TensorDictBase) -> TensorDictBase:
    """A copy of the entries under ``next``, in which the agents that are bootstrapped count as alive."""
    next_entries = tensordict.get(NEXT).copy()
    for group in groups:
        if group.mask:
            next_entries.set(group.keys.mask, alive_next(tensordict, group.keys))
    return next_entries


def write_values(actor: QActor, tensordict: TensorDictBase, values: Tensor, index: Tensor) -> None:
    """Write what mixers read of one group: the choice ``index``, its value, and the value of the best allowed one."""
    keys = actor.group.keys
    tensordict.set(keys.action_value, values)
    best = actor.greedy(tensordict).unsqueeze(-1)
    tensordict.set(keys.action, actor.encode(index))
    tensordict.set(keys.chosen_action_value, values.gather(-1, index.unsqueeze(-1)))
    tensordict.set(keys.max_action_value, values.gather(-1, best))


def chosen_values(actors: Mapping[str, QActor], tensordict: TensorDictBase) -> dict[str, Tensor]:
    """The values ``[*B, T, n_agents, 1]`` that ``write_values`` wrote, by group."""
    return {name: tensordict.get(actor.group.keys.chosen_action_value) for name, actor in actors.items()}


def team_value(mixer: TensorDictModuleBase, tensordict: TensorDictBase, mixed: NestedKey) -> Tensor:
    """The team's value ``[*B, T, 1, 1]``, which ``mixer`` writes at ``mixed``."""
    return mixer(tensordict).get(mixed).unsqueeze(-2)
