"""Recipes: the kit's parts wired into algorithms, and their command lines."""

from ctde_kit.recipes.loading import LoadedRun, load

__all__ = ["LoadedRun", "load"]
