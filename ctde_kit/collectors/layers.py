"""What a collector's env is made of: the env that steps, and the transforms around it."""

from __future__ import annotations

from torch import nn
from torchrl.envs import EnvBase, TransformedEnv


def base_of(env: EnvBase) -> EnvBase:
    """The env below all transforms."""
    return env.base_env if isinstance(env, TransformedEnv) else env


def transforms_of(env: EnvBase) -> list[nn.Module]:
    """The env's transforms, with the modules that they are made of."""
    return list(env.transform.modules()) if isinstance(env, TransformedEnv) else []
