"""Environments: VMAS, PettingZoo, level-based foraging, matrix games, and a memory task."""
