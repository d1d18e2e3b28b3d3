"""Environments: VMAS, PettingZoo, level-based foraging, RWARE, SMAX, OpenSpiel, small games; transforms of any."""
