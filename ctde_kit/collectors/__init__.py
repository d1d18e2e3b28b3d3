"""Collectors of experience."""

from ctde_kit.collectors.rollout import RolloutCollector

__all__ = ["RolloutCollector"]
