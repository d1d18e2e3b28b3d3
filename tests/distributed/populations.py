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


def small_population(members: int = 2, restarts: int = 3, **options: Any) -> MADDPGConfig:
    """Three iterations of 60 frames; critics are exchanged after the second, and checkpoints written after each."""
    sync = SyncConfig(**{**EXCHANGE, **options.pop("sync", {})})
    where = RayDistribution(members=members, sync=sync if members > 1 else SyncConfig(), restarts=restarts)
    return small_maddpg_config(**{"threads": 1, "compile": "off", "total_frames": 180, "distributed": where, **options})


def content(run: Path) -> dict[str, Any]:
    """The last checkpoint of a run of MADDPG."""
    return read_checkpoint(latest_checkpoint(run / "checkpoints"), algorithm="maddpg")


class LossyProcesses(LocalProcesses):
    """Loses the process of one member when it is asked to go on for the n-th time; each object takes the next loss."""

    def __init__(self, losses: list[tuple[str, int]]) -> None:
        super().__init__()
        self.loss = losses.pop(0) if losses else None

    def start(self, make: Callable[[], object], name: str) -> LocalObject:
        n_th = self.loss[1] if self.loss is not None and self.loss[0] == name else 0
        self._hosted.append(LossyObject(make, name, n_th))
        return self._hosted[-1]


class LossyObject(LocalObject):
    def __init__(self, make: Callable[[], object], name: str, n_th: int) -> None:
        super().__init__(make)
        self.name, self.left = name, n_th

    def ask(self, method: str, *arguments: object) -> Answered:
        self.left -= method == "go_on"
        is_lost = method == "go_on" and self.left == 0
        return LostAnswer(self.name) if is_lost else super().ask(method, *arguments)


class LostAnswer(Answered):
    def get(self) -> Any:
        raise ProcessLostError(f"{self._value} was lost (ActorDiedError)")
