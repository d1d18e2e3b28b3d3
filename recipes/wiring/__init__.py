"""What recipes have in common, wired: environments, policies, collectors; each name is imported when it is used."""

from typing import TYPE_CHECKING

from ctde_kit.lazy import lazy_face

if TYPE_CHECKING:
    from ctde_kit.recipes.wiring.beliefs import check_sees_others, policy_inference
    from ctde_kit.recipes.wiring.collecting import collector
    from ctde_kit.recipes.wiring.critic_parts import (
        averaging,
        counterfactual_critics,
        critics_of_actions,
        critics_team,
        keys_read,
        say_agents_are_alike,
    )
    from ctde_kit.recipes.wiring.information import mutual_information
    from ctde_kit.recipes.wiring.normalization import observation_norm, one_after_the_other, reward_norm
    from ctde_kit.recipes.wiring.policies import learners_of, learning_team, team_policy
    from ctde_kit.recipes.wiring.ppo_parts import PolicyGradient, policy_gradient
    from ctde_kit.recipes.wiring.recurrence import (
        check_replay_form,
        compiles_updates,
        is_recurrent,
        sequence_length,
        slice_length,
    )
    from ctde_kit.recipes.wiring.schedules import (
        adam,
        epsilon,
        epsilon_and_learning_rate,
        learning_rate,
        learning_rates,
    )
    from ctde_kit.recipes.wiring.setting import begin
    from ctde_kit.recipes.wiring.team_mixer import check_one_team, mixer
    from ctde_kit.recipes.wiring.weighting import central_value

_NAMES = {
    "beliefs": ("check_sees_others", "policy_inference"),
    "weighting": ("central_value",),
    "information": ("mutual_information",),
    "critic_parts": (
        "averaging",
        "counterfactual_critics",
        "critics_of_actions",
        "critics_team",
        "keys_read",
        "say_agents_are_alike",
    ),
    "team_mixer": ("check_one_team", "mixer"),
    "normalization": ("observation_norm", "one_after_the_other", "reward_norm"),
    "ppo_parts": ("PolicyGradient", "policy_gradient"),
    "policies": ("learners_of", "learning_team", "team_policy"),
    "recurrence": ("check_replay_form", "compiles_updates", "is_recurrent", "sequence_length", "slice_length"),
    "schedules": ("adam", "epsilon", "epsilon_and_learning_rate", "learning_rate", "learning_rates"),
    "setting": ("begin",),
    "collecting": ("collector",),
}

__all__ = [
    "PolicyGradient",
    "adam",
    "averaging",
    "begin",
    "central_value",
    "check_one_team",
    "check_replay_form",
    "check_sees_others",
    "collector",
    "compiles_updates",
    "counterfactual_critics",
    "critics_of_actions",
    "critics_team",
    "epsilon",
    "epsilon_and_learning_rate",
    "is_recurrent",
    "keys_read",
    "learners_of",
    "learning_rate",
    "learning_rates",
    "learning_team",
    "mixer",
    "mutual_information",
    "observation_norm",
    "one_after_the_other",
    "policy_gradient",
    "policy_inference",
    "reward_norm",
    "say_agents_are_alike",
    "sequence_length",
    "slice_length",
    "team_policy",
]

__getattr__, __dir__ = lazy_face(
    __name__, {name: f"{__name__}.{module}" for module, names in _NAMES.items() for name in names}
)
