"""Environments: VMAS, PettingZoo, level-based foraging, matrix games, a memory and a communication task."""
