"""The entries that MADDPG's and MASAC's losses read from a batch, and those that they add for their critics."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import cast

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey

from ctde_kit.entry_tables import Entry, GroupEntries
from ctde_kit.keys import IS_INIT
from ctde_kit.objectives.maddpg.joint_actions import DeterministicActor, LearningActor, Opponent, stored_vector
from ctde_kit.objectives.orders import with_orders
from ctde_kit.objectives.read_entries import entries_read_by, masks_of, now_and_next, team_flags, team_reward
from ctde_kit.objectives.team_reward import REWARD
from ctde_kit.objectives.unroll import hidden_key
from ctde_kit.protocols import RecurrentModule
from ctde_kit.specs import GroupSpec


def entries_of_parts(
    actors: Mapping[str, LearningActor | Opponent],
    learners: Container[str],
    critics: Sequence[TensorDictModuleBase],
    mixer: TensorDictModuleBase | None = None,
    reward: NestedKey = REWARD,
) -> list[Entry]:
    """What a loss with these parts reads from a batch, without the entries that it adds itself.

    Args:
        actors: of every group.
        learners: the groups that learn.
        critics: all of them, second ones included.
        mixer: mixes the critics' values; ``None``: each agent learns from its own reward.
        reward: the key of the team's reward, which is read only with a mixer.
    """
    groups = [actor.group for actor in actors.values()]
    entries = team_flags()
    for name, actor in actors.items():
        group = GroupEntries.of(actor.group)
        entries += [*masks_of(actor.group), replace(group.action, advice="store the action that was executed")]
        entries += (
            _of_learner(cast(LearningActor, actor), groups)
            if name in learners
            else _of_opponent(cast(Opponent, actor), groups)
        )
        entries += [group.reward] if name in learners and mixer is None else []
        entries += group.ends
    added = [key for critic in critics if (key := hidden_key(critic))]
    names = ("action", "action_vector", "chosen_action_value")
    added += [group.keys(name) for group in groups for name in names]
    for reader in [*critics, *([] if mixer is None else [mixer])]:
        entries += now_and_next(reader, groups, added)
    return [*entries, *([] if mixer is None else [team_reward(reward)])]


def sub_policy_entries(learners: Iterable[DeterministicActor]) -> list[Entry]:
    """The entries that say which sub-policy each agent followed, for actors that have several."""
    return [
        GroupEntries.of(actor.group).sub_policy(actor.sub_policies.size)
        for actor in learners
        if actor.sub_policies is not None
    ]


def _of_learner(actor: LearningActor, groups: Sequence[GroupSpec]) -> list[Entry]:
    group = GroupEntries.of(actor.group)
    entries = now_and_next(actor.agent_network, groups)
    return [*entries, *([group.action_mask, group.action_mask.next()] if actor.group.action_mask else [])]


def _of_opponent(opponent: Opponent, groups: Sequence[GroupSpec]) -> list[Entry]:
    """What an opponent reads: only entries under ``next``, because the loss calls it on those alone."""
    following = [entry.next() for entry in entries_read_by(opponent, groups) if entry.key != IS_INIT]
    return [entry.if_present() if entry.is_next_mask else entry for entry in following]


def with_critic_entries(
    groups: Mapping[str, GroupSpec],
    critics: Mapping[str, TensorDictModuleBase],
    tensordict: TensorDictBase,
    twins: Mapping[str, TensorDictModuleBase],
) -> TensorDictBase:
    """A copy ``[*B, T]`` with the entries that critics read and no replay stores.

    These are actions as vectors, the critics' hidden states (zero) and, where critics ask for them, random orders of
    the agents.
    """
    data = (tensordict.unsqueeze(-1) if tensordict.ndim == 1 else tensordict).copy()
    for group in groups.values():
        data.set(group.keys.action_vector, stored_vector(group, data))
    for name, critic in [*critics.items(), *twins.items()]:
        key = hidden_key(critic)
        if key is not None:
            like = data.get(groups[name].keys.action_vector)
            data.set(key, like.new_zeros(*data.shape, *cast(RecurrentModule, critic).hidden_shape))
    return with_orders([*critics.values(), *twins.values()], data)
