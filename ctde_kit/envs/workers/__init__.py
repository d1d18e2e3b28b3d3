"""PettingZoo environments in worker processes, stepped side by side as one batched environment."""

from ctde_kit.envs.workers.batched_env import WorkerEnv, env_seed
from ctde_kit.envs.workers.starting import worker_env
from ctde_kit.errors import WorkerError

__all__ = ["WorkerEnv", "WorkerError", "env_seed", "worker_env"]
