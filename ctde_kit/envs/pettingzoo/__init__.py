"""PettingZoo environments by name; AEC environments are shown as parallel ones."""

from ctde_kit.envs.pettingzoo.aec import AECAsParallel, as_parallel
from ctde_kit.envs.pettingzoo.factory import PettingZooFactory, pettingzoo_factory

__all__ = ["AECAsParallel", "PettingZooFactory", "as_parallel", "pettingzoo_factory"]
