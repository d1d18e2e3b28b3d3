"""Collectors and whole learners in processes of their own, on one machine or several, with Ray."""

from ctde_kit.distributed.processes import LocalProcesses, Processes, ProcessLostError
from ctde_kit.distributed.ray_processes import RayProcesses
from ctde_kit.distributed.remote_rollouts import RemoteRollouts
from ctde_kit.distributed.seeds import rank_seed

__all__ = ["LocalProcesses", "ProcessLostError", "Processes", "RayProcesses", "RemoteRollouts", "rank_seed"]
