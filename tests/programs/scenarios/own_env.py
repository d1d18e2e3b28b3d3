"""A TorchRL environment as a user would bring it: TorchRL's own wrapper of VMAS."""

from __future__ import annotations

from torchrl.envs import EnvBase, VmasEnv


def make_env(n_envs: int, device: str, n_agents: int = 3) -> EnvBase:
    """VMAS ``balance``, wrapped by TorchRL."""
    return VmasEnv("balance", num_envs=n_envs, device=device, n_agents=n_agents)
