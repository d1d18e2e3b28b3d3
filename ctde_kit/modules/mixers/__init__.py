"""Mixers: the value of the team from the values of its agents."""
