"""What MADDPG's loss is made of: checked, and what it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey

from ctde_kit.errors import UserError
from ctde_kit.keys import DONE, IS_INIT, NEXT, TERMINATED, next_key
from ctde_kit.objectives.unroll import hidden_key

OtherActions = Literal["replay", "current"]


def read_keys(
    actors: Mapping[str, Any],
    critics: Mapping[str, Any],
    mixer: TensorDictModuleBase | None,
    team_reward: NestedKey,
) -> list[NestedKey]:
    """What a loss of these parts reads off a batch; what it makes for them itself is left out."""
    keys: list[Any] = [(NEXT, DONE), (NEXT, TERMINATED)]
    made: list[Any] = [key for critic in critics.values() if (key := hidden_key(critic))]
    for actor in actors.values():
        group, own = actor.group.keys, hidden_key(actor.agent_network)
        masks = [group.action_mask] * actor.group.action_mask + [group.mask] * actor.group.mask
        keys += [*([] if own is None else [own, IS_INIT]), group.action]
        keys += _now_and_next([*actor.agent_network.in_keys, *masks], [own])
        made += [group.action_vector, group.chosen_action_value]
    for reader in [*critics.values(), *([] if mixer is None else [mixer])]:
        keys += _now_and_next(reader.in_keys, made)
        keys += [IS_INIT] if hidden_key(reader) else []
    own_rewards = [next_key(actors[name].group.keys.reward) for name in critics]
    return list(dict.fromkeys([*keys, *(own_rewards if mixer is None else [(NEXT, team_reward)])]))


def _now_and_next(keys: Sequence[Any], without: Sequence[Any]) -> list[Any]:
    read = [key for key in keys if key not in without and key != IS_INIT]
    return [*read, *map(next_key, read)]


def check_parts(
    actors: Mapping[str, Any], critics: Mapping[str, Any], mixer: Any, of_each_agent: list[Any], other_actions: str
) -> None:
    """Raise ``UserError`` unless critics, mixer and what changes the others' actions fit together."""
    if other_actions not in get_args(OtherActions):
        raise UserError(f"other_actions={other_actions!r}: expected one of {', '.join(get_args(OtherActions))}")
    unknown = sorted(critics.keys() - actors.keys())
    if unknown or not critics:
        raise UserError(f"critics: expected groups of {sorted(actors)}, found {unknown or 'none'}; give each an actor")
    if mixer is not None and critics.keys() != actors.keys():
        raise UserError(f"mixer: expected a critic of every group of {sorted(actors)}, found {sorted(critics)}")
    if mixer is not None and any(key[-1] == "max_action_value" for key in mixer.in_keys):
        raise UserError(
            f"mixer: {type(mixer).__name__} reads the value of the best action, which these critics do not give; "
            "use QMixer or VDNMixer (mixer=qmix or mixer=vdn)"
        )
    if len(of_each_agent) + (mixer is not None) > 1:
        raise UserError(
            "mixer, adversary, inference: each changes whose actions an agent's value is of; leave one only"
        )
