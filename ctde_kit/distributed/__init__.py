"""Collectors and whole learners in processes of their own, on one machine or several, with Ray."""

from ctde_kit.distributed.gradients import AverageGradients, average_gradients, free_address
from ctde_kit.distributed.learners import Learners
from ctde_kit.distributed.processes import LocalProcesses, Processes, ProcessLostError
from ctde_kit.distributed.ray_processes import RayProcesses
from ctde_kit.distributed.remote_rollouts import RemoteRollouts
from ctde_kit.distributed.seeds import rank_seed

__all__ = [
    "AverageGradients",
    "Learners",
    "LocalProcesses",
    "ProcessLostError",
    "Processes",
    "RayProcesses",
    "RemoteRollouts",
    "average_gradients",
    "free_address",
    "rank_seed",
]
