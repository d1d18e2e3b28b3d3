"""Policies of one group or one team: stochastic, deterministic, by action values, frozen and scripted."""
