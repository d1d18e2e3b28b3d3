"""Environments: VMAS, PettingZoo, level-based foraging, small games, and transforms of any of them."""
