"""VMAS environments: GPU-batched worlds with true truncation and batched partial resets."""

from ctde_kit.envs.vmas.heuristics import VmasHeuristic
from ctde_kit.envs.vmas.scenario_arguments import shipped_scenarios
from ctde_kit.envs.vmas.vmas_env import VmasEnv

__all__ = ["VmasEnv", "VmasHeuristic", "shipped_scenarios"]
