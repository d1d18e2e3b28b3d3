"""Small populations in this process, and what they leave behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ctde_kit.distributed import LocalProcesses, ProcessLostError
from ctde_kit.distributed.processes import Answered, LocalObject
from ctde_kit.recipes import MADDPGConfig, RayDistribution, SyncConfig
from ctde_kit.training import latest_checkpoint, read_checkpoint
from tests.recipes.small_maddpg import small_maddpg_config

EXCHANGE = {"what": "best_critic", "every": 120, "episodes": 4}


def small_population(members: int = 3, restarts: int = 3, **options: Any) -> MADDPGConfig:
    """Four iterations of 60 frames; critics are exchanged after the second, and checkpoints written after each."""
    sync = SyncConfig(**{**EXCHANGE, **options.pop("sync", {})})
    where = RayDistribution(members=members, sync=sync if members > 1 else SyncConfig(), restarts=restarts)
    return small_maddpg_config(**{"threads": 1, "compile": "off", "distributed": where, **options})


def content(run: Path) -> dict[str, Any]:
    """The last checkpoint of a run of MADDPG."""
    return read_checkpoint(latest_checkpoint(run / "checkpoints"), algorithm="maddpg")


class LossyProcesses(LocalProcesses):
    """Loses the process of one member when it is asked to go on for the n-th time, as often as is told."""

    def __init__(self, losses: list[tuple[str, int]]) -> None:
        super().__init__()
        self.losses = losses

    def start(self, make: Callable[[], object], name: str) -> LocalObject:
        hosted = LossyObject(make, name, self.losses)
        self._hosted.append(hosted)
        return hosted


class LossyObject(LocalObject):
    def __init__(self, make: Callable[[], object], name: str, losses: list[tuple[str, int]]) -> None:
        super().__init__(make)
        self.name, self.losses, self.asked = name, losses, 0

    def ask(self, method: str, *arguments: object) -> Answered:
        self.asked += method == "go_on"
        if (self.name, self.asked) in self.losses:
            self.losses.remove((self.name, self.asked))
            return LostAnswer(self.name)
        return super().ask(method, *arguments)


class LostAnswer(Answered):
    def get(self) -> Any:
        raise ProcessLostError(f"{self._value} was lost (ActorDiedError)")
