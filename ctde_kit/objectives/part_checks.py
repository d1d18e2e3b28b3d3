"""Checks that a loss was given actors, critics and mixers of the kinds that it learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import nn

from ctde_kit.errors import UserError
from ctde_kit.keys import CHOSEN_ACTION_VALUE, GroupKeys
from ctde_kit.objectives.q_values import QActor
from ctde_kit.protocols import HasGroup


class WritesKeys(Protocol):
    """A module that says which entries it writes."""

    @property
    def out_keys(self) -> Sequence[NestedKey]:
        """Their keys."""
        ...


def check_groups(loss: str, argument: str, actors: object, advice: str) -> None:
    """Raise ``UserError`` unless ``actors`` is a mapping from group names to actors that know these groups.

    Args:
        loss: the name of the loss, for errors.
        argument: the name of its argument, for errors.
        actors: what it was given.
        advice: an actor that would fit.
    """
    if not isinstance(actors, Mapping):
        raise UserError(
            f"{loss}: {argument} is a {type(actors).__name__}: expected a mapping by group's name, such as "
            "{'agents': actor}"
        )
    for name, actor in actors.items():
        if not isinstance(actor, HasGroup):
            raise UserError(
                f"{loss}: {argument}[{name!r}] is a {type(actor).__name__}, which knows no group: expected a part such "
                f"as {advice}"
            )
        if actor.group.name != name:
            raise UserError(f"{loss}: {argument}[{name!r}] is of group {actor.group.name!r}; use this name")


def check_q_actors(actors: Mapping[str, QActor]) -> None:
    """Raise ``UserError`` unless ``QMixLoss`` can learn these actors."""
    check_groups("QMixLoss", "actors", actors, "MultiAgentQActor, or as_q_actor(group, module)")
    for name, actor in actors.items():
        if actor.group.keys.action_value not in _keys(actor):
            raise UserError(
                f"QMixLoss: actors[{name!r}], a {type(actor).__name__}, writes no {actor.group.keys.action_value}: "
                "give a MultiAgentQActor, or as_q_actor(group, module)"
            )


def check_learners(
    loss: str, actors: Mapping[str, object], critics: Mapping[str, object], kind: type[object], advice: str
) -> None:
    """Raise ``UserError`` unless ``loss`` can learn the actors of the groups with critics, and these critics.

    Args:
        loss: the name of the loss, for errors.
        actors: of every group.
        critics: of the groups that learn.
        kind: the protocol that the actors of these groups must have.
        advice: an actor that would fit.
    """
    _check_critics(loss, "critics", critics)
    unknown = sorted(critics.keys() - actors.keys())
    if unknown or not critics:
        raise UserError(
            f"critics: expected groups of {sorted(actors)}, found {unknown or 'none'}; give at least one "
            "critic, and an actor of each critic's group"
        )
    for name in critics:
        if not isinstance(actors[name], kind):
            raise UserError(f"{loss}: actors[{name!r}] is a {type(actors[name]).__name__}: expected {advice}")


def check_twin_critics(
    loss: str,
    critics: Mapping[str, TensorDictModuleBase],
    twin_critics: Mapping[str, TensorDictModuleBase] | None,
) -> None:
    """Raise ``UserError`` unless second critics, if given, are of the same groups and share no parameter."""
    if twin_critics is None:
        return
    _check_critics(loss, "twin_critics", twin_critics)
    check_critics_of_actions(loss, twin_critics)
    if twin_critics.keys() != critics.keys():
        raise UserError(
            f"{loss}: twin_critics are of groups {sorted(twin_critics)}: expected those of critics, {sorted(critics)}"
        )
    first = {id(parameter) for critic in critics.values() for parameter in critic.parameters()}
    if any(id(parameter) in first for critic in twin_critics.values() for parameter in critic.parameters()):
        raise UserError(
            f"{loss}: twin_critics share parameters with critics, so the smaller of both values is no safer; build "
            "them separately"
        )


def _check_critics(loss: str, argument: str, critics: object) -> None:
    if not isinstance(critics, Mapping):
        raise UserError(f"{loss}: {argument} is a {type(critics).__name__}: expected a mapping by group's name")
    for name, critic in critics.items():
        key = GroupKeys(name).state_action_value
        if not isinstance(critic, TensorDictModuleBase) or (
            key not in _keys(critic) and GroupKeys(name).state_value not in _keys(critic)
        ):
            raise UserError(
                f"{loss}: {argument}[{name!r}] is a {type(critic).__name__} and writes no {key}: give "
                "action_value_critic(...), or a module that writes it"
            )
        reads = {"action_vector", "action"} & {key[-1] for key in critic.in_keys if key[0] == name}
        if reads == {"action"}:
            raise UserError(
                f"{loss}: {argument}[{name!r}] reads {GroupKeys(name).action}, which has no gradient: expected "
                f"{GroupKeys(name).action_vector}; as_action_value_critic(group, module) makes it read that"
            )


def check_mixer(loss: str, mixer: TensorDictModuleBase | None) -> None:
    """Raise ``UserError`` for a critic in the place of a mixer."""
    if mixer is not None and {"state_value", "state_action_value"} & _names(mixer):
        raise UserError(
            f"{loss}: mixer is {type(mixer).__name__}, a critic, which mixes nothing; give a module that writes the "
            f"root key {CHOSEN_ACTION_VALUE!r}, such as QMixer, or use MAPPOLoss or MADDPGLoss for the critic"
        )


def check_policy(loss: str, actor: object) -> None:
    """Raise ``UserError`` for an actor without distributions of actions, such as a critic in its place."""
    if not callable(getattr(actor, "get_dist", None)):
        raise UserError(
            f"{loss}: actor is a {type(actor).__name__}, which gives no distribution (get_dist): expected a part such "
            "as MultiAgentActor, and the critic after it"
        )


def check_critic_of_states(loss: str, critic: TensorDictModuleBase) -> None:
    """Raise ``UserError`` for a critic of actions where a critic of states is needed."""
    if "state_action_value" in _names(critic):
        raise UserError(
            f"{loss}: critic writes 'state_action_value', the value of actions; give a critic of states, such as "
            "value_critic(...)"
        )


def is_part_of(critic: nn.Module, actor: nn.Module) -> bool:
    """Whether the critic is the actor's own network, which gives the agents' values beside their policies."""
    return any(part is critic for part in actor.modules())


def check_critics_of_actions(loss: str, critics: Mapping[str, TensorDictModuleBase]) -> None:
    """Raise ``UserError`` for critics of states where critics of actions are needed."""
    for name, critic in critics.items():
        if "state_value" in _names(critic):
            raise UserError(
                f"{loss}: the critic of group {name!r} writes 'state_value', which no action changes; give a critic of "
                "actions, such as action_value_critic(...)"
            )


def _keys(module: WritesKeys) -> list[NestedKey]:
    return list(module.out_keys)


def _names(module: TensorDictModuleBase) -> set[str]:
    return {key if isinstance(key, str) else str(key[-1]) for key in module.out_keys}
