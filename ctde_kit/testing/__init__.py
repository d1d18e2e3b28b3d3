"""The doctor: checks anyone's parts against the rules of centralized training with decentralized execution."""

from ctde_kit.testing.counterfactual_check import check_counterfactual_loss
from ctde_kit.testing.deterministic_check import check_deterministic_loss
from ctde_kit.testing.env_check import check_env
from ctde_kit.testing.findings import Finding, Report, RuleBroken
from ctde_kit.testing.mixer_check import check_mixer
from ctde_kit.testing.policy_check import check_policy
from ctde_kit.testing.policy_gradient_check import check_policy_gradient_loss
from ctde_kit.testing.sequential_check import check_sequential_update
from ctde_kit.testing.soft_actor_critic_check import check_soft_actor_critic_loss
from ctde_kit.testing.state_check import check_state
from ctde_kit.testing.value_check import check_value_loss

__all__ = [
    "Finding",
    "Report",
    "RuleBroken",
    "check_counterfactual_loss",
    "check_deterministic_loss",
    "check_env",
    "check_mixer",
    "check_policy",
    "check_policy_gradient_loss",
    "check_sequential_update",
    "check_soft_actor_critic_loss",
    "check_state",
    "check_value_loss",
]
