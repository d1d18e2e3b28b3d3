"""Collectors step a policy in an env, and yield batches of experience."""

from ctde_kit.collectors.rollout import RolloutCollector

__all__ = ["RolloutCollector"]
