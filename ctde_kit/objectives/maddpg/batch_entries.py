"""The entries that MADDPG's loss reads off a batch, and those that it adds for critics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey

from ctde_kit.keys import DONE, IS_INIT, NEXT, TERMINATED, next_key
from ctde_kit.objectives.maddpg.joint_actions import stored_vector
from ctde_kit.objectives.orders import order_keys, with_orders
from ctde_kit.objectives.unroll import hidden_key
from ctde_kit.specs import GroupSpec


def read_keys(
    actors: Mapping[str, Any],
    critics: Mapping[str, Any],
    mixer: TensorDictModuleBase | None,
    team_reward: NestedKey,
) -> list[NestedKey]:
    """The keys that a loss of these parts reads off a batch, without those of entries that it adds itself."""
    keys: list[Any] = [(NEXT, DONE), (NEXT, TERMINATED)]
    added: list[Any] = [key for critic in critics.values() if (key := hidden_key(critic))]
    added += [key for critic in critics.values() for key in order_keys(critic)]
    for name, actor in actors.items():
        group, alive = actor.group.keys, [actor.group.keys.mask] * actor.group.mask
        added += [group.action_vector, group.chosen_action_value]
        keys += [group.action, *_now_and_next(alive, [])]
        if name not in critics:
            keys += [next_key(key) for key in actor.in_keys if key != IS_INIT]
            continue
        hidden = hidden_key(actor.agent_network)
        keys += [] if hidden is None else [hidden, IS_INIT]
        keys += _now_and_next([*actor.agent_network.in_keys, *[group.action_mask] * actor.group.action_mask], [hidden])
    for reader in [*critics.values(), *([] if mixer is None else [mixer])]:
        keys += _now_and_next(reader.in_keys, added)
        keys += [IS_INIT] if hidden_key(reader) else []
    own_rewards = [next_key(actors[name].group.keys.reward) for name in critics]
    return list(dict.fromkeys([*keys, *(own_rewards if mixer is None else [(NEXT, team_reward)])]))


def _now_and_next(keys: Sequence[Any], without: Sequence[Any]) -> list[Any]:
    read = [key for key in keys if key not in without and key != IS_INIT]
    return [*read, *map(next_key, read)]


def with_vectors(
    groups: Mapping[str, GroupSpec], critics: Mapping[str, Any], tensordict: TensorDictBase
) -> TensorDictBase:
    """A copy ``[*B, T]`` with the entries that critics read and no replay stores.

    These are actions as vectors, the critics' hidden states (zero) and, where critics ask for them, drawn orders.
    """
    data = (tensordict.unsqueeze(-1) if tensordict.ndim == 1 else tensordict).copy()
    for group in groups.values():
        data.set(group.keys.action_vector, stored_vector(group, data))
    for name, critic in critics.items():
        key = hidden_key(critic)
        if key is not None:
            like = data.get(groups[name].keys.action_vector)
            data.set(key, like.new_zeros(*data.shape, *critic.hidden_shape))
    return with_orders(critics.values(), data)
