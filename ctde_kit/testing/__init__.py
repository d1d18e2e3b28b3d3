"""The doctor: rules of centralized training with decentralized execution that anyone's parts can be held against."""

from ctde_kit.testing.env_check import check_env
from ctde_kit.testing.findings import Finding, Report, RuleBroken
from ctde_kit.testing.policy_check import check_policy
from ctde_kit.testing.policy_gradient_check import check_policy_gradient_loss

__all__ = ["Finding", "Report", "RuleBroken", "check_env", "check_policy", "check_policy_gradient_loss"]
