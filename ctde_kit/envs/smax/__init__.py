"""SMAX, JaxMARL's StarCraft-like battles, stepped in batches by JAX; it needs ``pip install "ctde-kit[smax]"``."""

from ctde_kit.envs.smax.smax_env import SmaxEnv

__all__ = ["SmaxEnv"]
