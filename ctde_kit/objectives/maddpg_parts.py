"""What MADDPG's loss is made of: checked, and what it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey

from ctde_kit.errors import UserError
from ctde_kit.keys import CHOSEN_ACTION_VALUE, DONE, IS_INIT, NEXT, TERMINATED, next_key
from ctde_kit.objectives.joint_actions import stored_vector
from ctde_kit.objectives.orders import order_keys, with_orders
from ctde_kit.objectives.part_checks import check_critics_of_actions, check_mixer
from ctde_kit.objectives.unroll import hidden_key
from ctde_kit.specs import GroupSpec

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
    made += [key for critic in critics.values() for key in order_keys(critic)]
    for name, actor in actors.items():
        group, alive = actor.group.keys, [actor.group.keys.mask] * actor.group.mask
        made += [group.action_vector, group.chosen_action_value]
        keys += [group.action, *_now_and_next(alive, [])]
        if name not in critics:
            keys += [next_key(key) for key in actor.in_keys if key != IS_INIT]
            continue
        own = hidden_key(actor.agent_network)
        keys += [] if own is None else [own, IS_INIT]
        keys += _now_and_next([*actor.agent_network.in_keys, *[group.action_mask] * actor.group.action_mask], [own])
    for reader in [*critics.values(), *([] if mixer is None else [mixer])]:
        keys += _now_and_next(reader.in_keys, made)
        keys += [IS_INIT] if hidden_key(reader) else []
    own_rewards = [next_key(actors[name].group.keys.reward) for name in critics]
    return list(dict.fromkeys([*keys, *(own_rewards if mixer is None else [(NEXT, team_reward)])]))


def _now_and_next(keys: Sequence[Any], without: Sequence[Any]) -> list[Any]:
    read = [key for key in keys if key not in without and key != IS_INIT]
    return [*read, *map(next_key, read)]


def with_vectors(
    groups: Mapping[str, GroupSpec], critics: Mapping[str, Any], tensordict: TensorDictBase
) -> TensorDictBase:
    """A copy ``[*B, T]`` with what is made for critics.

    Actions as vectors, the critics' hidden states before the first step, zero, and orders where they are random.
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


def check_parts(
    actors: Mapping[str, Any],
    critics: Mapping[str, Any],
    mixer: Any,
    adversary: Any,
    inference: Any,
    other_actions: str,
    team_weight: float,
) -> None:
    """Raise ``UserError`` unless critics, mixer and what changes the others' actions fit together."""
    if other_actions not in get_args(OtherActions):
        raise UserError(f"other_actions={other_actions!r}: expected one of {', '.join(get_args(OtherActions))}")
    check_critics_of_actions("MADDPGLoss", critics)
    check_mixer("MADDPGLoss", mixer)
    unknown = sorted(critics.keys() - actors.keys())
    if unknown or not critics:
        raise UserError(f"critics: expected groups of {sorted(actors)}, found {unknown or 'none'}; give each an actor")
    mixed = [] if mixer is None else [key[0] for key in mixer.in_keys if key[-1] == CHOSEN_ACTION_VALUE]
    if mixer is not None and critics.keys() != set(mixed):
        raise UserError(
            f"mixer: expected critics of the groups that it reads, {sorted(mixed)}, found {sorted(critics)}"
        )
    if mixer is not None and (team_weight or other_actions != "replay"):
        raise UserError(
            f"team_weight={team_weight}, other_actions={other_actions}: with a mixer all agents learn from the team's "
            "reward, among everyone's current actions; leave them 0 and replay"
        )
    if mixer is not None and any(actors[name].sub_policies is not None for name in critics):
        raise UserError(
            "mixer: one value of the team has no replay for each sub-policy of an agent; leave ensemble_size=1, or use "
            "mixer=none"
        )
    if inference is not None and critics.keys() != actors.keys():
        raise UserError(
            f"inference: expected a critic of every group of {sorted(actors)}, found {sorted(critics)}; an opponent's "
            "policy cannot be compared with beliefs of it, so leave infer_policies=false"
        )
    if mixer is not None and any(key[-1] == "max_action_value" for key in mixer.in_keys):
        raise UserError(
            f"mixer: {type(mixer).__name__} reads the value of the best action, which these critics do not give; "
            "use QMixer or VDNMixer (mixer=qmix or mixer=vdn)"
        )
    if sum(part is not None for part in (mixer, adversary, inference)) > 1:
        raise UserError(
            "mixer, adversary, inference: each changes whose actions an agent's value is of; leave one only"
        )
