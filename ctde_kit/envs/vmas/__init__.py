"""VMAS environments: GPU-batched worlds with true truncation and batched partial resets."""

from ctde_kit.envs.vmas.env import VmasEnv
from ctde_kit.envs.vmas.scenario_arguments import shipped_scenarios

__all__ = ["VmasEnv", "shipped_scenarios"]
