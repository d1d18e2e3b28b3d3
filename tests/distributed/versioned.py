"""Collectors whose batches say with which weights and random numbers they were collected."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import nn

import ctde_kit as ck
from ctde_kit.distributed import LocalProcesses, Processes, ProcessLostError, RemoteRollouts, rank_seed
from ctde_kit.distributed.processes import Answer, HostedObject
from ctde_kit.specs import TeamSpec

N_ENVS, STEPS = 2, 3
VERSION = ("agents", "version")


class VersionedActor(TensorDictModuleBase):
    """Random actions, beside the version of its weights."""

    def __init__(self, team: TeamSpec) -> None:
        super().__init__()
        self.random = ck.modules.RandomActor(team["agents"])
        self.version = nn.Parameter(torch.zeros(()))
        self.in_keys, self.out_keys = self.random.in_keys, [*self.random.out_keys, VERSION]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        tensordict = self.random(tensordict)
        shape = tensordict.get(("agents", "action")).shape[:-1]
        return tensordict.set(VERSION, self.version.detach().expand(*shape, 1).clone())


def collector(rank: int, seed: int = 0) -> ck.RolloutCollector:
    """Of two envs, three steps per batch; episodes of seven steps."""
    torch.manual_seed(rank_seed(seed, rank))
    env = ck.VmasEnv("navigation", num_envs=N_ENVS, max_steps=7, seed=rank_seed(seed, rank))
    policy = VersionedActor(TeamSpec.from_env(env))
    return ck.RolloutCollector(env, policy, frames_per_batch=N_ENVS * STEPS)


def rollouts(
    collectors: int,
    *,
    batches: int = -1,
    delay: int = 0,
    processes: Callable[[], Processes] = LocalProcesses,
    restarts: int = 3,
    make: Callable[[int], ck.RolloutCollector] = collector,
) -> RemoteRollouts:
    """Remote rollouts of such collectors."""
    here = collector(0)
    frames = N_ENVS * STEPS * collectors
    return RemoteRollouts(
        make,
        here.policy,
        here.env,
        processes=processes,
        collectors=collectors,
        frames_per_batch=frames,
        total_frames=frames * batches if batches > 0 else -1,
        delay=delay,
        restarts=restarts,
    )


def learn(one: RemoteRollouts | ck.RolloutCollector, batches: int) -> list[TensorDictBase]:
    """A loop that draws random numbers and changes the weights after each batch."""
    found = []
    for batch in one:
        found.append(batch.clone())
        torch.rand(5)
        with torch.no_grad():
            one.policy.version += 1
        if len(found) == batches:
            break
    return found


class FragileProcesses(LocalProcesses):
    """Processes that are lost, each with its first call of a number in ``calls``, counted over all objects."""

    def __init__(self, calls: set[int]) -> None:
        super().__init__()
        self.calls, self.count = calls, 0

    def start(self, make: Callable[[], object], name: str) -> HostedObject:
        return _Fragile(super().start(make, name), name, self)


class _Fragile:
    def __init__(self, hosted: HostedObject, name: str, processes: FragileProcesses) -> None:
        self.hosted, self.name, self.processes, self.lost = hosted, name, processes, False

    def ask(self, method: str, *arguments: object) -> Answer:
        self.processes.count += 1
        self.lost = self.lost or self.processes.count in self.processes.calls
        return _Lost(self.name) if self.lost else self.hosted.ask(method, *arguments)

    def end(self) -> None:
        self.hosted.end()


class _Lost:
    def __init__(self, name: str) -> None:
        self.name = name

    def is_there(self, seconds: float) -> bool:
        return True

    def get(self) -> object:
        raise ProcessLostError(f"{self.name} was lost")


def fragile(*calls: int) -> Callable[[], Processes]:
    return partial(FragileProcesses, set(calls))
