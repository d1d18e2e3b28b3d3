"""Checks that a loss was given the kind of critic or mixer that it learns from."""

from __future__ import annotations

from collections.abc import Mapping

from tensordict.nn import TensorDictModuleBase

from ctde_kit.errors import UserError
from ctde_kit.keys import CHOSEN_ACTION_VALUE


def check_mixer(loss: str, mixer: TensorDictModuleBase | None) -> None:
    """Raise ``UserError`` for a critic in the place of a mixer."""
    if mixer is not None and {"state_value", "state_action_value"} & _names(mixer):
        raise UserError(
            f"{loss}: mixer is {type(mixer).__name__}, a critic, which mixes nothing; give a module that writes the "
            f"root key {CHOSEN_ACTION_VALUE!r}, such as QMixer, or use MAPPOLoss or MADDPGLoss for the critic"
        )


def check_critic_of_states(loss: str, critic: TensorDictModuleBase) -> None:
    """Raise ``UserError`` for a critic of actions where a critic of states is needed."""
    if "state_action_value" in _names(critic):
        raise UserError(
            f"{loss}: critic writes 'state_action_value', the value of actions; give a critic of states, such as "
            "value_critic(...)"
        )


def check_critics_of_actions(loss: str, critics: Mapping[str, TensorDictModuleBase]) -> None:
    """Raise ``UserError`` for critics of states where critics of actions are needed."""
    for name, critic in critics.items():
        if "state_value" in _names(critic):
            raise UserError(
                f"{loss}: the critic of group {name!r} writes 'state_value', which no action changes; give a critic of "
                "actions, such as action_value_critic(...)"
            )


def _names(module: TensorDictModuleBase) -> set[str]:
    return {key if isinstance(key, str) else str(key[-1]) for key in module.out_keys}
