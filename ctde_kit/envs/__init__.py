"""Environments: VMAS, PettingZoo, level-based foraging, and a memory task."""
