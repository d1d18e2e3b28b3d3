"""Checks that the parts and options of MADDPG's loss fit together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast, get_args

from tensordict.nn import TensorDictModuleBase

from ctde_kit.errors import UserError, check_choice
from ctde_kit.keys import CHOSEN_ACTION_VALUE
from ctde_kit.objectives.maddpg.inference import PolicyInference
from ctde_kit.objectives.maddpg.joint_actions import DeterministicActor, Opponent
from ctde_kit.objectives.maddpg.minimax import MinimaxAdversary
from ctde_kit.objectives.maddpg.target_smoothing import TargetPolicySmoothing
from ctde_kit.objectives.part_checks import (
    check_critics_of_actions,
    check_groups,
    check_learners,
    check_mixer,
    check_twin_critics,
)
from ctde_kit.protocols import LearnsActions

OtherActions = Literal["replay", "current"]
OTHER_ACTIONS: tuple[OtherActions, ...] = get_args(OtherActions)


def check_parts(
    actors: Mapping[str, DeterministicActor | Opponent],
    critics: Mapping[str, TensorDictModuleBase],
    mixer: TensorDictModuleBase | None,
    adversary: MinimaxAdversary | None,
    inference: PolicyInference | None,
    other_actions: str,
    team_weight: float,
) -> None:
    """Raise ``UserError`` unless the parts and options of ``MADDPGLoss`` fit together."""
    check_choice("MADDPGLoss", "other_actions", other_actions, OTHER_ACTIONS)
    advice = "MultiAgentDeterministicActor, or as_deterministic_actor(group, module)"
    check_groups("MADDPGLoss", "actors", actors, advice)
    check_learners("MADDPGLoss", actors, critics, LearnsActions, f"a {advice}")
    check_critics_of_actions("MADDPGLoss", critics)
    check_mixer("MADDPGLoss", mixer)
    mixed = [] if mixer is None else [key[0] for key in mixer.in_keys if key[-1] == CHOSEN_ACTION_VALUE]
    if mixer is not None and critics.keys() != set(mixed):
        raise UserError(
            f"mixer: expected critics of the groups that it reads, {sorted(mixed)}, found {sorted(critics)}"
        )
    if mixer is not None and (team_weight or other_actions != "replay"):
        raise UserError(
            f"team_weight={team_weight}, other_actions={other_actions!r}: with a mixer all agents learn from the "
            "team's reward and with everyone's current actions; leave team_weight=0 and other_actions='replay'"
        )
    if mixer is not None and any(cast(DeterministicActor, actors[name]).sub_policies is not None for name in critics):
        raise UserError(
            "mixer: the team has one value per step, so it cannot be learned from each sub-policy's own steps; give "
            "actors without sub_policies, or mixer=None"
        )
    if inference is not None and critics.keys() != actors.keys():
        raise UserError(
            f"inference: expected a critic of every group of {sorted(actors)}, found {sorted(critics)}; beliefs cannot "
            "be compared with the policy of an opponent, which has no critic, so leave inference=None"
        )
    if mixer is not None and any(key[-1] == "max_action_value" for key in mixer.in_keys):
        raise UserError(
            f"mixer: {type(mixer).__name__} reads the value of the best action, which these critics do not give; "
            "use QMixer or VDNMixer"
        )
    if sum(part is not None for part in (mixer, adversary, inference)) > 1:
        raise UserError(
            "mixer, adversary, inference: each changes the joint actions that critics value in its own way; give one "
            "of them only"
        )


def check_matd3(
    actors: Mapping[str, DeterministicActor | Opponent],
    critics: Mapping[str, TensorDictModuleBase],
    mixer: TensorDictModuleBase | None,
    twin_critics: Mapping[str, TensorDictModuleBase] | None,
    smoothing: TargetPolicySmoothing | None,
) -> None:
    """Raise ``UserError`` unless MATD3's options fit the other parts of ``MADDPGLoss``."""
    check_twin_critics("MADDPGLoss", critics, twin_critics)
    if mixer is not None and twin_critics is not None:
        raise UserError(
            "twin_critics: with a mixer the loss learns one value of the team, not one per critic; leave "
            "twin_critics=None"
        )
    discrete = [name for name in critics if actors[name].group.action.discrete]
    if smoothing is not None and discrete:
        raise UserError(
            f"smoothing: the actions of group {discrete[0]!r} are discrete, so no noise can be added to them; leave "
            "smoothing=None"
        )
