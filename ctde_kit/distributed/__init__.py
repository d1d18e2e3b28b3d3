"""Collectors and whole learners in processes of their own, on one machine or several, with Ray."""

from ctde_kit.distributed.agents import AgentLearners
from ctde_kit.distributed.critic_exchange import CriticExchange
from ctde_kit.distributed.gradients import AverageGradients, average_gradients, free_address
from ctde_kit.distributed.meeting_room import Exchange, MeetingRoom, Saved, Scored
from ctde_kit.distributed.member import Meetings
from ctde_kit.distributed.population import Population
from ctde_kit.distributed.processes import LocalProcesses, Processes, ProcessLostError
from ctde_kit.distributed.ray_processes import RayProcesses
from ctde_kit.distributed.remote_rollouts import RemoteRollouts
from ctde_kit.distributed.seeds import rank_seed
from ctde_kit.distributed.shared_learning import Learners
from ctde_kit.distributed.sync_schedule import SyncSchedule

__all__ = [
    "AgentLearners",
    "AverageGradients",
    "CriticExchange",
    "Exchange",
    "Learners",
    "LocalProcesses",
    "MeetingRoom",
    "Meetings",
    "Population",
    "ProcessLostError",
    "Processes",
    "RayProcesses",
    "RemoteRollouts",
    "Saved",
    "Scored",
    "SyncSchedule",
    "average_gradients",
    "free_address",
    "rank_seed",
]
